"""SIGKILL while nodes keep something between rounds, or a log grows: the end is that of an undisturbed run, to the last bit."""

import random

import pytest
from federation import children
from killing import kill_after_stage
from study import KSEED, SFT, state_files

METHODS = {
    "error memory": {"extra": '[[codec]]\nuse = "topk"\nfraction = 0.05\n[[codec]]\nuse = "int8"\n[error_feedback]\ndecay = 0.9\n',
                     "privacy": 'use = "clip"\nclipping_norm = 0.1'},
    "personal part": {"aggregator": 'use = "fedsa_lora"\nweighting = "uniform"'},
    "control variates": {"trainer": SFT.replace("sft", "scaffold")},
    "a log with snapshots": {"aggregator": 'use = "fedex_lora"\nweighting = "uniform"'},
    "seeds and scalars": {"adapter": 'use = "full"', "trainer": KSEED,
                          "aggregator": 'use = "fedkseed"\nweighting = "uniform"\nseeds = 64'},
    "three ranks": {"aggregator": 'use = "flexlora"\nweighting = "uniform"', "ranks": [2, 4, 8]},
    "alternating halves, lossy downlink": {"aggregator": 'use = "rolora"\nweighting = "uniform"', "extra": '[[downlink]]\nuse = "int8"\n'},
}


@pytest.mark.parametrize("method", METHODS)
def test_kills_of_coordinator_and_nodes_change_no_bit(study, method):
    fed = study(rounds=6, **METHODS[method])
    settings = ["--set", "run.compact_log_after=2"]
    expected = state_files(fed.run("undisturbed", *settings))
    dice = random.Random(method)
    stages = ["opened", "received", "closed", "released"]
    for turn in range(2):
        run = fed.folder / f"killed-{turn}"
        for life in range(6):
            process = dice.choice(["coordinator", "node"])
            runner = fed.start(run.name, *([] if life else settings), resume=life > 0)
            if life < 5:
                kill_after_stage(runner, run, dice.choice(stages), lambda: children(runner.pid).get(process, [])[:1], dice)
            output, _ = runner.communicate(timeout=120)
            if runner.returncode == 0:
                break
        assert runner.returncode == 0, output
        found = state_files(run)
        assert found.keys() == expected.keys()
        for name, held in expected.items():
            assert found[name] == held or name.endswith(".hansa") and same_tensors(fed, run / name, fed.folder / "undisturbed" / name), name


def same_tensors(fed, one, other):
    """Headers name the attempt that made a version."""
    first, second = fed.tensors(one), fed.tensors(other)
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)
