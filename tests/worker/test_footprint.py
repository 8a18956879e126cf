"""What a replica is predicted to take, against what it does take from loading to its last request."""

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easel.kernels.canvas_state import Whole
from easel.scheduler.messages import PhasePolicy
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.footprint import MOST_SLOTS, Footprint
from easel.worker.loading import load_engine
from easel.worker.sketch import sketch_directory, sketch_preset
from tests.worker.driving import drain
from tests.worker.random_checkpoint import SMALL, shallow, write_random
from tests.worker.storage_meter import StorageMeter

GIB = 2**30
BLOCK = 32
CONFIG = EngineConfig(
    slots=2, page_size=BLOCK, refresh_limit=2 * BLOCK, policy=PhasePolicy(target_seconds=1e9)
)
# Pages, and the prompt of each request. A bidirectional sequence leaves nothing behind in its pages, so
# there are no more than two requests fill; the other layouts' are filled by several, one after the other.
SIZES = {"SDAR": (44, 192), "LLaDA2": (24, 192), "LLaDA": (8, 64), "DiffusionGemma": (24, 192)}
HARDEST = SamplingParams(max_tokens=BLOCK + 1, temperature=1.0, top_k=20, top_p=0.9)


def fill(engine: Engine, pages: int, prompt: int) -> None:
    """Requests in every slot, until every page has been used, with the dearest way to draw tokens."""
    for index in range(pages * BLOCK // prompt + 1):
        tokens = tuple((7 * index + position) % 400 + 10 for position in range(prompt))
        rebuild_every = 0 if engine.shape.layout.shares_prefix else 2
        steps = DiffusionParams(steps=1 + index % 3, rebuild_every=rebuild_every)
        engine.submit(Request(str(index), tokens, HARDEST, steps))
    drain(engine)


def used_slots(engine: Engine) -> int:
    return int((engine.runner.machine.registers.state.whole(Whole.STEP) > 0).sum())


def used_pages(engine: Engine) -> int:
    """Pages of the prefix cache that something was written to."""
    keys = engine.runner.machine.cache.keys[0]
    return int(keys.view(len(keys), engine.shape.pages, -1).abs().sum((0, 2)).count_nonzero())


def footprint(path: Path, config: EngineConfig, dtype: torch.dtype = torch.float32) -> Footprint:
    return Footprint.of(sketch_directory(path), config, dtype)


@pytest.mark.parametrize("family", SIZES)
def test_from_loading_to_the_last_request_an_engine_takes_what_was_predicted(
    tmp_path: Path, family: str
) -> None:
    """Never more, and at least 95 %: weights, slots and pages to the byte, and a bound on the rest."""
    pages, prompt = SIZES[family]
    write_random(tmp_path, SMALL[family])
    config = replace(CONFIG, pages=pages, dtype="float32")
    predicted = footprint(tmp_path, config).total(2, pages)
    gc.collect()
    with StorageMeter() as meter:
        engine = load_engine(tmp_path, config)
        fill(engine, pages, prompt)
    assert 0.95 * predicted <= meter.peak <= predicted
    assert used_slots(engine) == 2
    assert used_pages(engine) == pages


@pytest.mark.parametrize(("slots", "dtype"), [(1, torch.float32), (5, torch.float32), (2, torch.bfloat16)])
@pytest.mark.parametrize("family", SIZES)
def test_no_forward_takes_more_than_the_workspace(
    tmp_path: Path, family: str, slots: int, dtype: torch.dtype
) -> None:
    pages, prompt = 12, SIZES[family][1]
    config = shallow(SMALL[family])
    write_random(tmp_path, config)
    settings = replace(CONFIG, slots=slots, pages=pages, dtype=str(dtype).removeprefix("torch."))
    with StorageMeter() as meter:
        engine = load_engine(tmp_path, settings)
        held, meter.peak = meter.live, meter.live
        fill(engine, pages, prompt)
    assert 0 < meter.peak - held <= footprint(tmp_path, settings, dtype).workspace(slots, pages)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", SIZES)
def test_on_a_gpu_an_engine_takes_what_was_predicted(tmp_path: Path, family: str) -> None:
    pages, prompt = SIZES[family]
    write_random(tmp_path, SMALL[family])
    config = replace(CONFIG, pages=pages, dtype="float32", device="cuda")
    predicted = footprint(tmp_path, config).total(2, pages)
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    fill(load_engine(tmp_path, config), pages, prompt)
    assert 0.95 * predicted <= torch.cuda.max_memory_allocated() - before <= predicted


def test_partial_steps_cost_each_slot_a_canvas_of_keys_and_values(tmp_path: Path) -> None:
    write_random(tmp_path, SMALL["SDAR"])
    exact, partial = (
        footprint(tmp_path, replace(CONFIG, partial=partial)).slot() for partial in (False, True)
    )
    assert set(partial) - set(exact) == {"canvas keys and values"}
    assert partial["canvas keys and values"] == BLOCK * 16 * 2 * 8 * 64 * 4


def test_a_slot_of_diffusion_gemma_by_hand() -> None:
    slot = Footprint.of(sketch_preset("DiffusionGemma-26B-A4B"), EngineConfig(), torch.bfloat16).slot()
    assert set(slot) == {"registers", "denoiser", "sliding window"}
    # Soft embeddings, and a few numbers about the block.
    assert 0 <= slot["denoiser"] - 256 * 2816 * 2 < 100
    # 25 layers of 8 heads of 256; 1,023 tokens before a token and itself touch up to 17 pages of 64.
    assert slot["sliding window"] == 17 * 64 * 25 * 2 * 8 * 256 * 2


def test_slots_have_pages_for_what_one_forward_writes_in_common() -> None:
    """16 commits of 256 slots and a refresh quota of 2,048 tokens: 24 rows of 4 pages of 64."""
    found = Footprint.of(sketch_preset("DiffusionGemma-26B-A4B"), EngineConfig(), torch.bfloat16)
    assert found.spare(256) == 24 * 4 * 64 * 25 * 2 * 8 * 256 * 2
    assert found.spare(1) == found.spare(256) // 24
    assert found.shape(256, 1).commit_limit == 16
    assert Footprint.of(sketch_preset("SDAR-8B-Chat"), EngineConfig(), torch.bfloat16).spare(256) == 0


def test_hundreds_of_canvases_fit_beside_diffusion_gemma() -> None:
    sketch = sketch_preset("DiffusionGemma-26B-A4B")
    found = Footprint.of(sketch, EngineConfig(), torch.bfloat16, device=torch.device("cuda"))
    assert found.fit(141 * 10**9, None, None, prefix=4096)[0] == 256
    assert found.fit(80 * 10**9, None, None, prefix=4096)[0] >= 80


def test_a_page_holds_the_keys_and_values_of_full_layers() -> None:
    found = Footprint.of(sketch_preset("DiffusionGemma-26B-A4B"), EngineConfig(), torch.bfloat16)
    assert (found.page_size, found.page) == (64, 64 * 5 * 2 * 2 * 512 * 2)


@pytest.mark.parametrize(
    "name", ["SDAR-8B-Chat", "LLaDA2.0-mini", "LLaDA-8B-Instruct", "DiffusionGemma-26B-A4B"]
)
def test_what_fits_is_the_most_that_fits(name: str) -> None:
    found = Footprint.of(sketch_preset(name), EngineConfig(), torch.bfloat16)
    slots, pages = found.fit(71 * GIB, None, None, prefix=4096)
    each = -(-4096 // found.page_size)
    assert found.total(slots, pages) <= 71 * GIB < found.total(slots, pages + 1)
    assert pages >= slots * each
    assert slots == MOST_SLOTS or found.total(slots + 1, (slots + 1) * each) > 71 * GIB


def test_a_number_that_is_given_is_kept() -> None:
    found = Footprint.of(sketch_preset("SDAR-8B-Chat"), EngineConfig(), torch.bfloat16)
    assert found.fit(40 * GIB, 7, None, prefix=4096)[0] == 7
    assert found.fit(40 * GIB, None, 5000, prefix=4096)[1] == 5000


def test_nothing_fits_beside_weights_that_are_too_large() -> None:
    found = Footprint.of(sketch_preset("LLaDA2.0-flash"), EngineConfig(), torch.bfloat16)
    assert found.fit(80 * GIB, None, None, prefix=4096) == (0, 0)
