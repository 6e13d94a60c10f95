"""Launches that a signal meets at a chosen moment, whatever the machine is doing.

`python killed.py ...` in the place of `watched.py ...`: the process sends itself a signal as STRUCK says: 'SIGNAL MOMENT STEP'.
Moments: 'save', a checkpoint from this step on is written and not yet complete; 'chunk', steps beyond this one are on their way
and not read; 'evaluation', one from this step on begins; 'scored' and 'remove', as they are called.
"""

import itertools
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import watched  # noqa: E402
import xla_cache  # noqa: E402

from research.train import checkpoint, loop  # noqa: E402


def launch(monkeypatch, study, number, moment, step=0):
    """(what it told, its exit status, the launch) of a launch that is struck, once it is over."""
    with monkeypatch.context() as patched:
        patched.setattr(watched, '__file__', __file__)
        patched.setenv('STRUCK', f'{number.name} {moment} {step}')
        launched = study.launch()
    status = launched.wait()
    assert launched.survivors() == []
    return launched.events(), status, launched


def strike(number, owner, name, due):
    """Once, in front of a call, where `due(*arguments)`."""
    wrapped, times = getattr(owner, name), itertools.count()

    def struck(*args, **kwargs):
        if due(*args) and next(times) == 0:
            os.kill(os.getpid(), number)
        return wrapped(*args, **kwargs)

    setattr(owner, name, struck)


def arm(number, moment, step):
    if moment == 'save':
        saving, saved = [], checkpoint.Checkpoints.save

        def save(self, at, *args, **kwargs):
            if at >= step:
                saving.append(at)
            return saved(self, at, *args, **kwargs)

        checkpoint.Checkpoints.save = save
        # orbax gives a folder its name when all of it is there.
        strike(number, os, 'rename', lambda source, *_: saving and 'orbax-checkpoint-tmp' in str(source))
    elif moment == 'chunk':
        strike(number, loop._Run, '_read', lambda run, steps, *_: run.at.step + steps > step)
    elif moment == 'evaluation':
        strike(number, loop._Run, '_evaluate', lambda run, *_: run.at.step >= step)
    elif moment == 'scored':
        strike(number, loop, 'save_variables', lambda *_: True)
    else:
        strike(number, checkpoint, 'remove', lambda *_: True)


if __name__ == '__main__':
    events = sys.argv.pop(1)
    from research import cli

    xla_cache.write_whole_entries()
    watched._watch(events)
    number, moment, step = os.environ['STRUCK'].split()
    arm(signal.Signals[number], moment, int(step))
    cli.main()
