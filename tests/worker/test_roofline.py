"""The roofline against sums done by hand, and against what must hold on any device."""

import pytest

from easel.worker.anatomy import Anatomy, LayerAnatomy
from easel.worker.devices import DEVICES, Device, known_device
from easel.worker.errors import UnknownName
from easel.worker.roofline import Rows, Scene, Work, block_seconds, forward, phases
from easel.worker.sketch import sketch_preset

H200 = known_device("H200")
TINY = Anatomy(
    layers=(
        LayerAnatomy(100, 10, heads=2, kv_heads=1, head_dim=4, inner=8),
        LayerAnatomy(50, 10, heads=2, kv_heads=1, head_dim=4, inner=0, experts=4, chosen=2, expert=30),
    ),
    hidden_size=8,
    vocab_size=11,
    tied=True,
    vectors=8,
)


def scene(preset: str, prefix: int = 1024) -> Scene:
    sketch = sketch_preset(preset)
    info = sketch.info
    return Scene(sketch.anatomy, info.family.layout, info.block_length, prefix=prefix)


def test_sdar_1_7b_by_hand() -> None:
    """The worked example of docs/roofline.md."""
    reuse = phases(scene("SDAR-1.7B-Chat"), 1)["reuse"]
    matrices = 28 * (2048 * (2048 + 2 * 1024) + 2048 * 2048 + 3 * 2048 * 6144)
    vectors = 28 * (2 * 2048 + 2 * 128) + 2048
    assert reuse.parts["dense"] == Work(2 * 4 * matrices, 2 * (matrices + vectors))
    assert reuse.parts["head"] == Work(2 * 4 * 151936 * 2048, 2 * 151936 * 2048)
    assert reuse.parts["attention"] == Work(28 * 4 * 16 * 128 * 4 * 1028, 28 * 1024 * 2 * 8 * 128 * 2)
    assert set(reuse.parts) == {"dense", "head", "attention"}
    assert reuse.seconds(H200) * 1e3 == pytest.approx(0.8276, abs=1e-4)
    assert reuse.intensity == pytest.approx(4.13, abs=0.01)
    assert reuse.bound(H200) == "memory"


@pytest.mark.parametrize(
    ("preset", "canvases", "milliseconds"),
    [
        ("DiffusionGemma-26B-A4B", 1, 12.9),
        ("DiffusionGemma-26B-A4B", 8, 28.8),
        ("DiffusionGemma-26B-A4B", 32, 102.5),
        ("SDAR-1.7B-Chat", 8, 1.02),
        ("SDAR-1.7B-Chat", 128, 5.73),
        ("SDAR-8B-Chat", 1, 3.56),
        ("SDAR-8B-Chat", 128, 14.3),
        ("LLaDA2.0-mini", 1, 4.84),
        ("LLaDA2.0-mini", 32, 9.07),
        ("LLaDA2.0-mini", 128, 14.9),
    ],
)
def test_a_step_of_a_published_model_has_the_floor_worked_out_elsewhere(
    preset: str, canvases: int, milliseconds: float
) -> None:
    found = phases(scene(preset), canvases)["reuse"].seconds(H200) * 1e3
    assert found == pytest.approx(milliseconds, rel=5e-3)


def test_experts_are_read_once_each_if_any_token_chooses_them() -> None:
    def read(tokens: int) -> float:
        return forward(TINY, [Rows(1, tokens, 0, tokens)], itemsize=1).parts["experts"].bytes

    assert read(1) == 2 * 30
    assert read(2) == pytest.approx(4 * (1 - 0.5**2) * 30)
    assert read(64) == pytest.approx(4 * 30)


def test_experts_multiply_only_with_the_tokens_that_chose_them() -> None:
    assert forward(TINY, [Rows(3, 5, 0, 5)], 2).parts["experts"].flops == 2 * 15 * 2 * 30


def test_only_rows_that_predict_read_the_head() -> None:
    assert "head" not in forward(TINY, [Rows(1, 4, 8, 4)], 2).parts
    assert forward(TINY, [Rows(2, 4, 8, 4, head=3)], 2).parts["head"] == Work(2 * 6 * 88, 2 * 88)


def test_a_window_bounds_what_is_read_and_seen() -> None:
    layer = LayerAnatomy(1, 0, heads=2, kv_heads=1, head_dim=4, inner=0, window=5)
    model = Anatomy((layer,), hidden_size=8, vocab_size=11, tied=True, vectors=0)
    canvas = forward(model, [Rows(1, 3, 100, 3)], 2).parts["attention"]
    assert canvas == Work(4 * 2 * 4 * 3 * (4 + 3), 4 * 2 * 4 * 2), "every query sees the same four, and all"
    causal = forward(model, [Rows(1, 3, 100, 2, causal=True)], 2).parts["attention"]
    assert causal.flops == 4 * 2 * 4 * 3 * 5, "each query sees five, itself included"


def test_a_part_takes_as_long_as_the_slower_of_arithmetic_and_memory() -> None:
    device = Device("d", flops=10.0, bandwidth=2.0, memory=0, source="")
    assert Work(100.0, 4.0).seconds(device) == 10.0
    assert Work(10.0, 40.0).seconds(device) == 20.0
    assert device.balance == 5.0


@pytest.mark.parametrize("preset", ["SDAR-8B-Chat", "LLaDA2.0-mini", "DiffusionGemma-26B-A4B"])
def test_larger_batches_never_lower_the_throughput(preset: str) -> None:
    speeds = [
        canvases / block_seconds(phases(scene(preset), canvases), H200, steps=4)
        for canvases in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    assert speeds == sorted(speeds)


def test_a_commit_shares_its_forward_with_the_opening() -> None:
    found = phases(scene("SDAR-8B-Chat"), 1)
    fused, reuse = found["commit + open"].seconds(H200), found["reuse"].seconds(H200)
    assert fused < 1.05 * reuse, "the weights are read once for both"
    assert block_seconds(found, H200, steps=4) == pytest.approx(fused + 3 * reuse)


def test_a_prefix_that_is_not_exact_costs_whole_sequences() -> None:
    found = phases(scene("LLaDA-8B-Instruct", prefix=992), 2)
    assert set(found) == {"rebuild", "reuse"}
    assert found["rebuild"].tokens == 2 * 1024
    rebuild, reuse = found["rebuild"].seconds(H200), found["reuse"].seconds(H200)
    assert block_seconds(found, H200, steps=8) == pytest.approx(8 * rebuild)
    assert block_seconds(found, H200, steps=8, rebuild_every=4) == pytest.approx(2 * rebuild + 6 * reuse)


def test_there_is_a_prefill_without_a_prefix_too() -> None:
    found = phases(scene("SDAR-1.7B-Chat", prefix=0), 1)
    assert found["prefill"].tokens == 4
    assert found["reuse"].parts["attention"].bytes == 0


def test_devices_say_where_their_numbers_are_from() -> None:
    assert all(device.source and device.memory > 2**30 for device in DEVICES.values())
    assert known_device("h200") is DEVICES["H200"]
    with pytest.raises(UnknownName, match=r"'H20'.*H200, H100.*Did you mean H200\?"):
        known_device("H20")
