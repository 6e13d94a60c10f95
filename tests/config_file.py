"""A config file that a test writes."""

HEAD = '"""Question: why?"""\nimport numpy as np\nimport ml_collections\nfrom research.config import base\n\n\n'


def written(folder, body, name='paper.py'):
    """A config file with `body` as the inside of get_config, beginning at line 9."""
    lines = ''.join(f'    {line}\n' for line in body.splitlines())
    path = folder / name
    path.write_text(f'{HEAD}def get_config(arg=""):\n    config = base.get_config()\n{lines}    return config\n')
    return path
