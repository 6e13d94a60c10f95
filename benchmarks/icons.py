"""Makes two sets of colour images in folders by class, of different styles, from icon themes: for configs/icons.py.

Run: python benchmarks/icons.py OUT NAME=THEME [NAME=THEME ...]

THEME is a folder of an installed or unpacked icon theme. On Debian:

    apt-get download gnome-icon-theme faenza-icon-theme && for file in *.deb; do dpkg-deb -x $file unpacked; done
    python benchmarks/icons.py icons gnome=unpacked/usr/share/icons/gnome faenza=unpacked/usr/share/icons/Faenza

Icons of 48 pixels become OUT/NAME/CLASS/*.png, by what they stand for. Links within a theme are left out, since they are the
same picture under another name.
"""

import pathlib
import shutil
import sys

# Contexts of the icon theme specification, as themes call them.
CLASSES = {kind: (kind,) for kind in ('actions', 'apps', 'categories', 'devices', 'places', 'status')}
CLASSES['mimetypes'] = ('mimetypes', 'mimes')
SIZES = ('48x48', '48')


def main(out: str, *themes: str) -> None:
    """Copies the icons of every theme, and prints how many there are of each class."""
    for theme in themes:
        name, _, folder = theme.partition('=')
        counts = {}
        for kind, calls in CLASSES.items():
            target = pathlib.Path(out, name, kind)
            target.mkdir(parents=True, exist_ok=True)
            pairs = [pair for size in SIZES for call in calls for pair in ((size, call), (call, size))]
            files = [
                file for pair in pairs for file in sorted(pathlib.Path(folder, *pair).glob('*.png')) if not file.is_symlink()
            ]
            for file in files:
                shutil.copyfile(file, target / file.name)
            counts[kind] = len(files)
        print(f'{name}: {sum(counts.values())} icons, ' + ', '.join(f'{kind} {count}' for kind, count in counts.items()))


if __name__ == '__main__':
    main(*sys.argv[1:])
