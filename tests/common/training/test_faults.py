"""What stops a run, and what it leaves behind."""

import contextlib
import errno
import os
import pickle
import resource
import signal
import threading

import pytest
import torch
from tiny_run import lines, tiny, weights
from torch import nn

from common.errors import CheckpointError, NonFiniteError, UserError
from common.training import EMA, Interrupted, State, fit
from common.training import checkpoint as checkpoints


def checkpoint(run) -> dict:
    return checkpoints.load(run.directory / "checkpoint.pt")


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_step_saves_and_continues(new_run, number):
    state, batches, step = tiny()
    fit(state, batches, step, steps=9, run=new_run(folder="whole"))
    before = signal.getsignal(number)
    run = new_run()
    halfway, batches, step = tiny()

    def interrupted(state, batch):
        if state.step == 4:
            os.kill(os.getpid(), number)
        return step(state, batch)

    with pytest.raises(Interrupted, match=r"at step 5 of 9.*same command continues") as caught:
        fit(halfway, batches, interrupted, steps=9, run=run)
    assert isinstance(caught.value, UserError)
    assert signal.getsignal(number) is before
    assert checkpoint(run)["state"]["step"] == 5
    resumed, batches, step = tiny()
    fit(resumed, batches, step, steps=9, run=run)
    assert weights(resumed) == weights(state)


def test_signal_in_the_last_step_is_not_lost(new_run):
    state, batches, step = tiny()

    def interrupted(state, batch):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(state, batch)

    run = new_run()
    with pytest.raises(Interrupted, match="SIGTERM at step 3 of 3"):
        fit(state, batches, interrupted, steps=3, run=run)
    assert checkpoint(run)["state"]["step"] == 3


@pytest.fixture
def listening():
    """Ctrl-C as a program in the foreground has it: one that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_ctrl_c_acts_at_once(new_run, listening):
    state, batches, _ = tiny()
    before = signal.getsignal(signal.SIGINT)

    def impatient(state, batch):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        fit(state, batches, impatient, steps=3, run=new_run())
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_are_put_back_without_a_signal_too(new_run, fails):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    state, batches, step = tiny()

    def may_fail(state, batch):
        assert signal.getsignal(signal.SIGTERM) not in before
        return {"loss": torch.tensor(float("nan"))} if fails else step(state, batch)

    with contextlib.suppress(NonFiniteError):
        fit(state, batches, may_fail, steps=3, run=new_run())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_handlers_are_left_alone_outside_the_main_thread(new_run):
    state, batches, step = tiny()
    thread = threading.Thread(target=lambda: fit(state, batches, step, steps=3, run=new_run()))
    thread.start()
    thread.join()
    assert state.step == 3


# ---------------------------------------------------------------- not a number


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_bad_step_is_named_though_metrics_are_read_later(new_run, bad):
    run = new_run()
    state, batches, step = tiny()

    def fails(state, batch):
        metrics = {**step(state, batch), "kl": torch.tensor(1.0)}
        if state.step >= 16:  # the 17th update
            metrics["kl"] = torch.tensor(bad)
        return metrics

    with pytest.raises(NonFiniteError, match=rf"Step 17: 'kl' was {bad}\."):
        fit(state, batches, fails, steps=50, run=run, log_every=10)
    assert [line["step"] for line in lines(run)] == [10]
    assert not (run.directory / "checkpoint.pt").exists()


def test_the_checkpoint_before_a_nan_stays(new_run):
    run = new_run()
    state, batches, step = tiny()
    fit(state, batches, step, steps=5, run=run)
    kept = (run.directory / "checkpoint.pt").read_bytes()
    state, batches, step = tiny()

    def fails(state, batch):
        return {"loss": step(state, batch)["loss"] + (float("nan") if state.step == 8 else 0.0)}

    with pytest.raises(NonFiniteError, match=r"Step 9: 'loss' was nan.*the checkpoint of step 8"):
        # a checkpoint is due after every step, a log line only much later
        fit(state, batches, fails, steps=50, run=run, log_every=1000, checkpoint_every_s=0)
    assert checkpoint(run)["state"]["step"] == 8
    assert (run.directory / "checkpoint.pt").read_bytes() != kept
    assert not torch.isnan(checkpoint(run)["window"]["rows"]).any()


def test_weights_that_turn_nan_behind_a_finite_loss_are_named_and_not_saved(new_run):
    run = new_run()
    state, batches, step = tiny()

    def fails(state, batch):
        metrics = step(state, batch)
        if state.step == 6:
            with torch.no_grad():
                state.model.bias.fill_(float("nan"))
        return metrics

    with pytest.raises(NonFiniteError, match="After step 7: parameter 'bias' is not finite"):
        fit(state, batches, fails, steps=50, run=run, checkpoint_every_s=0)
    assert checkpoint(run)["state"]["step"] == 6


def test_what_is_checked_before_a_checkpoint():
    model = nn.BatchNorm1d(2)
    model.register_buffer("mask", torch.tensor([0.0, -float("inf")]))  # legitimate
    adam = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 2)).sum().backward()
    adam.step()
    state = State(model, {"adam": adam}, torch.Generator(), EMA(model, 0.9))
    assert state.non_finite() is None
    for tensor, name in (
        (model.running_var, "buffer 'running_var'"),
        (adam.state[model.weight]["exp_avg_sq"], "'exp_avg_sq' of optimizer 'adam' for 'weight'"),
        (state.ema.model.bias.data, "averaged parameter 'bias'"),
        (model.bias.grad, "gradient of 'bias'"),
    ):
        kept = tensor.clone()
        tensor[0] = float("nan")
        assert state.non_finite() == name
        tensor.copy_(kept)


def test_a_nan_from_a_hook_stops_the_run(new_run):
    state, batches, step = tiny()
    with pytest.raises(NonFiniteError, match="Step 2: 'bound' was nan"):
        fit(
            state,
            batches,
            step,
            steps=4,
            run=new_run(),
            hooks=[lambda s: {"bound": float("nan")} if s.step == 2 else None],
        )


# ---------------------------------------------------------------- checkpoints


def saved(new_run, steps=5):
    run = new_run()
    state, batches, step = tiny()
    fit(state, batches, step, steps=steps, run=run)
    return run, (run.directory / "checkpoint.pt").read_bytes()


@pytest.mark.parametrize("after_bytes", [0, 1000])
def test_disk_full_while_checkpointing(new_run, monkeypatch, after_bytes):
    run, kept = saved(new_run)
    write, written = checkpoints._Sink.write, [0]

    def full(self, data):
        written[0] += len(data)
        if written[0] <= after_bytes:
            return write(self, data)
        self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise self.error

    state, batches, step = tiny()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._Sink, "write", full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*previous checkpoint is intact"):
            fit(state, batches, step, steps=9, run=run)
    assert (run.directory / "checkpoint.pt").read_bytes() == kept
    assert sorted(p.name for p in run.directory.iterdir()) == ["checkpoint.pt", "metrics.jsonl"]
    state, batches, step = tiny()
    fit(state, batches, step, steps=9, run=run)  # room was made
    assert state.step == 9


def test_a_real_limit_on_file_size(new_run):
    """The operating system refuses to write more than 600 bytes, in a child of ours."""
    run, kept = saved(new_run)
    report, reported = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
            state, batches, step = tiny()
            fit(state, batches, step, steps=9, run=run)
            os.write(reported, b"no error")
        except BaseException as error:
            os.write(reported, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(reported)
    os.waitpid(child, 0)
    message = os.read(report, 10000).decode()
    assert message.startswith("CheckpointError: Cannot write the checkpoint")
    assert "File too large" in message
    assert (run.directory / "checkpoint.pt").read_bytes() == kept
    assert sorted(p.name for p in run.directory.iterdir()) == ["checkpoint.pt", "metrics.jsonl"]


def test_another_configuration_is_refused_field_by_field(new_run):
    old = {"width": 4, "lr": 0.001, "layers": [4, 4], "data": {"name": "mnist", "levels": 2}, "gone": 1}
    new = {"width": 4, "lr": 0.003, "layers": [4, 5], "data": {"name": "digits", "levels": 2}, "fresh": None}
    state, batches, step = tiny()
    fit(state, batches, step, steps=2, run=new_run(old))
    kept = weights(state)
    with pytest.raises(CheckpointError) as caught:
        fit(state, batches, step, steps=4, run=new_run(new))
    shown = [line.strip() for line in str(caught.value).splitlines() if " -> " in line and line.startswith(" ")]
    assert shown == [
        "lr: 0.001 -> 0.003",
        "layers: [4, 4] -> [4, 5]",
        "data.name: 'mnist' -> 'digits'",
        "gone: 1 -> (absent)",
        "fresh: (absent) -> None",
    ]
    assert "start afresh" in str(caught.value)
    assert weights(state) == kept
    fit(state, batches, step, steps=4, run=new_run({**old, "layers": (4, 4)}))  # a tuple is JSON's list


def test_another_model_is_refused(new_run):
    run, _ = saved(new_run)
    model = nn.Linear(4, 1)
    other = State(model, {"sgd": torch.optim.SGD(model.parameters(), 0.1)}, torch.Generator())
    _, batches, step = tiny()
    with pytest.raises(CheckpointError, match=r"(?s)does not fit this code .*size mismatch"):
        fit(other, batches, step, steps=9, run=run)


@pytest.mark.parametrize("part", ["optimizers", "ema", "extra", "hooks"])
def test_other_parts_are_refused(new_run, part):
    run, _ = saved(new_run)
    state, batches, step = tiny()
    hooks = []
    stateful = torch.optim.lr_scheduler.StepLR(state.optimizers["sgd"], 1)
    if part == "optimizers":
        state.optimizers["second"] = torch.optim.SGD(state.model.parameters(), 0.1)
    elif part == "ema":
        state.ema = EMA(state.model, 0.9)
    elif part == "extra":
        state.extra["schedule"] = stateful
    else:

        class Hook:
            def __call__(self, state): ...
            def state_dict(self):
                return {}

            def load_state_dict(self, state): ...

        hooks = [Hook()]
    with pytest.raises(CheckpointError, match="does not fit this code"):
        fit(state, batches, step, steps=9, run=run, hooks=hooks)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("how", ["pickle", "torch archive"])
def test_a_pickle_is_never_executed(new_run, tmp_path, how):
    run = new_run()
    run.directory.mkdir()
    path, trace = run.directory / "checkpoint.pt", tmp_path / "executed"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"format": 1, "state": Bomb(trace)}))
    else:
        torch.save({"format": 1, "state": Bomb(trace)}, path)
    state, batches, step = tiny()
    with pytest.raises(CheckpointError, match="was not opened"):
        fit(state, batches, step, steps=3, run=run)
    assert not trace.exists()
    assert state.step == 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"not a checkpoint"])
def test_a_damaged_checkpoint(new_run, content):
    run = new_run()
    run.directory.mkdir()
    (run.directory / "checkpoint.pt").write_bytes(content)
    state, batches, step = tiny()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        fit(state, batches, step, steps=3, run=run)


def test_a_state_that_could_not_be_read_back_is_refused_when_first_saved(new_run):
    numpy = pytest.importorskip("numpy")

    class Buffer:
        def state_dict(self):
            return {"rewards": [numpy.float64(1.0)]}

        def load_state_dict(self, state): ...

    state, batches, step = tiny()
    state.extra["replay"] = Buffer()
    with pytest.raises(CheckpointError, match=r"state\.extra\.replay\.rewards\[0\], a numpy\.float64"):
        fit(state, batches, step, steps=3, run=new_run())
