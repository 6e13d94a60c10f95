"""Texts of the test split in the report: what a task shows of a run, from its examples.json (see research.tasks.examples)."""

from typing import Any

from research.report import records, words

# In the folder of a run.
FILE = 'examples.json'


def read(found: records.Records) -> list[dict[str, Any]]:
    """What the runs of the first seed show, in the order of the variants.

    Returns:
      A list of {name, seed, title, about, texts}, texts a list of {text, lines: a list of {name, said}}, all text. Runs that
      did not finish, that show nothing, or whose file is damaged are left out.
    """
    seed, shown = found.study['seeds'][0], []
    for name, by_seed in found.results.items():
        run = by_seed.get(seed)
        if run is None or run['status'] != 'finished':
            continue
        content = records.derived(found.workdir / 'runs' / run['id'] / FILE)
        try:
            texts = [
                {'text': str(text['text']), 'lines': [{'name': str(name), 'said': _said(said)} for name, said in text['lines']]}
                for text in content['texts']
            ]
            shown.append({'name': name, 'seed': seed, **{key: str(content[key]) for key in ('title', 'about')}, 'texts': texts})
        except (KeyError, TypeError, ValueError):
            continue
    return shown


def _said(pairs: list[tuple[str, float]]) -> str:
    """'word (62 %) · letter (20 %)'."""
    return ' · '.join(f'{text} ({words.share(chance)})' for text, chance in pairs)
