"""What the README tells a reader to write works as it stands."""

import pathlib
import re

import jax

from research import models
from research.study import plan

_README = (pathlib.Path(__file__).parents[2] / 'README.md').read_text()


def test_the_paper_of_the_readme_needs_no_edit_here(tmp_path, monkeypatch):
    blocks = {m[1]: m[0] for m in re.findall(r'```python\n(# (my_paper/\w+\.py)\n.*?)```', _README, re.DOTALL) for m in [m]}
    assert {'my_paper/study.py', 'my_paper/nets.py'} <= blocks.keys()
    for name, text in blocks.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    study = plan.make(str(tmp_path / 'my_paper/study.py'), {})
    assert list(study.contrasts) == ['ghost_norm', 'clip', 'both', 'do they add up?'] and len(study.variants) == 5
    for run in study.runs[: len(study.variants)]:
        group = dict(run.config['model'])
        for key in models.OWN:
            group.pop(key)
        module = models.create(group.pop('name'), 10, **group)
        assert jax.eval_shape(module.init, jax.random.key(0), jax.numpy.zeros((4, 8, 8, 1)))['params']['head']
