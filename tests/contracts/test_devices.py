"""One contract for every device that is here: `python -m pytest -m cuda` asks a GPU."""
from dataclasses import replace

import pytest
import torch

from swinmpi.errors import SwinmpiError
from swinmpi.parallel.comm import Group
from swinmpi.parallel.staging import Reading, host_room, to_device, to_host
from swinmpi.parallel.stopwatch import Stopwatch
from swinmpi.sampling.on_device.finiteness import FiniteCheck
from swinmpi.sampling.on_device.network import Network
from swinmpi.sampling.on_device.noise import NoiseSource, Wanted, drawing_threads
from swinmpi.sampling.superresolve import SuperResolver
from tests.support import exchanging
from tests.support.exchanging import joined, lr_images, make_resolver, rows_for
from tests.support.simulated import on_ranks
from tests.support.windows import window_noise

HAS_GPU = torch.cuda.is_available()
GPU = pytest.param("cuda:0", marks=[pytest.mark.cuda, pytest.mark.skipif(
    not HAS_GPU, reason="there is no GPU here")])
every_device = pytest.mark.parametrize("device", ["cpu", GPU])
WANTED = Wanted(5, 3, tuple((image, position) for image in (2, 9) for position in range(7)))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def on_device(family, sampler, exchange, group, device, **computing):
    made = make_resolver(family, sampler, exchange, group)
    made.family.model.to(device)
    computing = replace(made.computing, device=device, **computing)
    return SuperResolver(made.family, made.process, computing, made.make_exchange, group)


def sampled(num_ranks, family, sampler, exchange, device, **computing):
    def of_rank(group):
        resolver = on_device(family, sampler, exchange, group, device, **computing)
        parts = {}
        for part in resolver(rows_for(resolver, lr_images()), [10, 11], exchanging.SEEDS):
            assert part.samples.device.type == part.base.device.type == "cpu"
            rows, cols = (slice(line.start - seen.start, line.stop - seen.start)
                          for line, seen in zip((part.rows, part.cols), part.seen, strict=True))
            parts[part.slot, part.rows, part.cols] = torch.cat(
                [part.samples, part.base[None]])[:, :, rows, cols].clone()
        return parts

    return joined(on_ranks(num_ranks, of_rank))


@every_device
@pytest.mark.parametrize("family", ["aligned", "wavelet", "thesis", "srdiff, windows", "bands"])
@pytest.mark.parametrize("exchange", ["root", "torus"])
def test_images_do_not_depend_on_device_or_ranks(family, exchange, device):
    """Between ranks of a device by no bit, between devices by what convolutions differ."""
    made = sampled(1, family, "ddpm, random", exchange, device)
    assert torch.equal(made, sampled(2, family, "ddpm, random", exchange, device))
    on_cpu = sampled(1, family, "ddpm, random", "root", "cpu")
    torch.testing.assert_close(made, on_cpu, rtol=0, atol=1e-3)


@every_device
@pytest.mark.parametrize("exchange", ["root", "torus"])
def test_everything_of_a_rank_lives_on_its_device(exchange, device):
    resolver, kinds = on_device("aligned", "ddim", exchange, Group(), device), set()

    def look(size, batch, t):
        kinds.update(part.device for part in batch)
        made = resolver.exchange_for(exchanging.HEIGHT, exchanging.WIDTH)
        kinds.update(canvas.values.device for condition in made.conditions
                     for canvas in condition.canvases)
        x_t = ([made.x_t] if exchange == "root" else
               [canvas.values for canvases in made.images for canvas in canvases])
        kinds.update(tensor.device for tensor in x_t)

    resolver.predictor.watch = look
    parts = list(resolver(rows_for(resolver, lr_images()), [10, 11], [0]))
    assert parts and kinds == {torch.device(device)}


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="there is no GPU here")
def test_a_prediction_waits_for_nothing():
    resolver, told = on_device("aligned", "none", "root", Group(), "cuda:0"), []
    exchange = resolver.exchange_for(exchanging.HEIGHT, exchanging.WIDTH)
    predict = exchange.predict

    def strict(number, t):
        torch.cuda.set_sync_debug_mode("error" if len(told) >= 2 else "default")
        try:
            return predict(number, t)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            told.append(number)

    exchange.predict = strict
    for _ in range(3):
        list(resolver(rows_for(resolver, lr_images()), [10, 11], [0]))
    assert len(told) == 6


@every_device
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_noise_drawn_ahead_is_the_noise_of_its_keys(threads, device):
    source = NoiseSource((3, 8, 8), None, torch.device(device), Stopwatch(), threads)
    expected = torch.stack([window_noise(5, image, 3, position, (3, 8, 8))
                            for image, position in WANTED.keys])
    assert torch.equal(source.windows(WANTED).cpu(), expected), "at once"
    source.soon(WANTED)
    source.soon(Wanted(5, 4, WANTED.keys))
    drawn = source.windows(WANTED)
    assert drawn.device == torch.device(device) and torch.equal(drawn.cpu(), expected)
    source.drop()
    assert not source.ahead
    assert torch.equal(source.windows(WANTED).cpu(), expected), "after another image"
    assert source.windows(Wanted(5, 4, ())).shape == (0, 3, 8, 8)


def test_a_cpu_draws_no_noise_beside_the_network():
    assert drawing_threads(torch.device("cpu")) == 0


@every_device
def test_host_memory_holds_what_the_device_has(device):
    values = torch.arange(24.0, device=device).view(2, 3, 4)
    room = host_room((30,), values.device)
    assert room.is_pinned() == (values.device.type == "cuda")
    copied = to_host(values.transpose(0, 1), room)
    assert copied.is_contiguous() and copied.tolist() == values.transpose(0, 1).tolist()
    assert to_device(copied, values.device).equal(values.transpose(0, 1))
    assert Reading(values.sum((1, 2))).read() == [66.0, 210.0]


def ask(check, number, x_t):
    for stack_index, image in zip((10, 11), x_t, strict=False):
        check.look(stack_index, image, image)
    check.ask(number)


@every_device
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_named(bad, device):
    check = FiniteCheck(make_resolver("bands", "ddim", "root", Group()).process)
    x_t = torch.zeros(2, 3, 8, 8, device=device)
    ask(check, 0, x_t)
    x_t = x_t.clone()
    x_t[1, 2, 5, 5] = bad
    with pytest.raises(SwinmpiError, match="not finite in image 11, step 2 of 5: expected"):
        ask(check, 1, x_t)
        ask(check, 2, torch.zeros_like(x_t))
    assert not check.asked or check.asked[0][0] == 2


@every_device
def test_numbers_whose_sum_is_none_are_numbers(device):
    check = FiniteCheck(make_resolver("bands", "ddim", "root", Group()).process)
    huge = torch.full((1, 3, 8, 8), 3e38, device=device)
    ask(check, 0, huge)
    check.read()
    assert not check.asked


@pytest.mark.slow
@every_device
def test_a_compiled_network_gives_the_same_images(device):
    """Where there is a compiler; `parallel.compile` says in a line where there is none."""
    from swinmpi.parallel.device import settled_compile
    if not settled_compile(True, torch.device(device).type):
        pytest.skip("nothing can be compiled here")
    plain, compiled = (sampled(1, "bands", "none", "root", device, compile=on)
                       for on in (False, True))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_network_that_cannot_be_compiled_is_named_in_a_line():
    computing = make_resolver("bands", "none", "root", Group()).computing
    network = Network(lambda x_t, t: x_t.no_such_operation(), replace(computing, compile=True))
    with pytest.raises(SwinmpiError) as raised:
        network([torch.zeros(1, 3, 8, 8)], 4)
    told = str(raised.value)
    assert told.startswith("parallel.compile: ") and told.endswith("; set parallel.compile=false")
    assert "\n" not in told
