"""swinmpi-evaluate on real files: right figures, three forms of the answer, bad input one line."""
import os
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from swinmpi.cli.evaluate import main
from swinmpi.errors import ConfigError
from swinmpi.evaluation.beside import sheet_of_stacks
from swinmpi.evaluation.compared import check_compared, open_compared
from swinmpi.images import metrics, perceptual
from swinmpi.images.imresize import imresize
from swinmpi.reports.tables import format_table
from swinmpi.storage.stack import Stack
from tests.support.evaluating import complaint, report_of, smooth_images, write_ours, write_stack
from tests.support.inception import write_inception
from tests.support.lpips import write_backbone


@pytest.fixture(autouse=True)
def no_backbone(tmp_path, monkeypatch):
    """A torch home without AlexNet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stacks(tmp_path):
    """HR, LR and SR files of three images; SR is nearer to HR than bicubic, its regression more."""
    hr = smooth_images()
    lr = np.stack([imresize(image, scale=0.5) for image in hr])
    noise = np.random.default_rng(1).integers(-2, 3, hr.shape)
    sr, regression = ((hr.astype(int) + error).clip(0, 255).astype(np.uint8)
                      for error in (noise, noise.clip(-1, 1)))
    lr_file = write_stack(tmp_path / "lr.h5", lr)
    return {"hr": write_stack(tmp_path / "hr.h5", np.moveaxis(hr, -1, 1)), "lr": lr_file,
            "sr": write_ours(tmp_path / "sr.h5", lr_file, {"sr": sr, "regression": regression}),
            "images": {"hr": hr, "lr": lr, "sr": sr, "regression": regression}}


def test_table_json_and_picture(stacks, tmp_path, capsys):
    with_lr = [stacks["sr"], "--reference", stacks["hr"], "--lr", stacks["lr"]]
    assert main([*with_lr, "--output", "out", "--per-image"]) == 0
    text = capsys.readouterr().out
    report, images = report_of(tmp_path / "out"), stacks["images"]
    for index in range(3):
        hr, lr = images["hr"][index], images["lr"][index]
        for version in ("sr", "regression"):
            figures, image = report["images"][index][version], images[version][index]
            assert figures["psnr"] == pytest.approx(metrics.psnr(image, hr, 255))
            assert figures["ssim"] == pytest.approx(metrics.ssim(image, hr, 255))
            assert figures["lr_psnr"] == pytest.approx(metrics.lr_psnr(image, lr, 255))
            assert figures["detail"] == pytest.approx(metrics.detail(image, hr))
            assert figures["seam"] == pytest.approx(metrics.seam_score(image, hr, 16))
            assert figures["lpips"] is None
            assert f"{figures['psnr']:.2f}" in text
        bicubic = report["images"][index]["bicubic"]
        expected = metrics.psnr(imresize(lr, scale=2.0), hr, 255)
        assert bicubic["psnr"] == pytest.approx(expected, abs=0.05)
    mean = report["mean"]
    assert mean["regression"]["psnr"] > mean["sr"]["psnr"] > mean["bicubic"]["psnr"]
    expected = np.mean([image["sr"]["ssim"] for image in report["images"]])
    assert mean["sr"]["ssim"] == pytest.approx(expected)
    assert (report["data_range"], report["window_px"]) == (255, 16)
    assert report["images"][0]["nan_pixels"] == 0
    assert "unavailable" in text and perceptual.BACKBONE_URL in text and "dB above bicubic" in text
    with Image.open(tmp_path / "out" / "evaluate.png") as picture:
        assert picture.width > 6 * 200


def test_lr_is_hr_shrunk_where_it_is_not_given(stacks, tmp_path):
    without_lr = [stacks["sr"], "--reference", stacks["hr"]]
    assert main([*without_lr, "--output", "shrunk"]) == 0
    assert main([*without_lr, "--lr", stacks["lr"], "--output", "given"]) == 0
    shrunk, given = report_of(tmp_path / "shrunk"), report_of(tmp_path / "given")
    assert shrunk["scale"] == given["scale"] == 2 and shrunk["lr"] is None
    assert shrunk["images"] == given["images"]


def test_any_file_can_be_the_sr_stack(stacks, tmp_path, capsys):
    plain = write_stack(tmp_path / "plain.h5", np.moveaxis(stacks["images"]["sr"], -1, 1))
    others = ["--reference", stacks["hr"], "--lr", stacks["lr"]]
    assert main([plain, *others, "--output", "plain"]) == 0
    assert main([stacks["sr"], *others, "--output", "ours"]) == 0
    plain, ours = report_of(tmp_path / "plain"), report_of(tmp_path / "ours")
    assert "regression" not in plain["mean"] and plain["mean"]["sr"]["seam"] is None
    assert plain["mean"]["sr"]["psnr"] == ours["mean"]["sr"]["psnr"]
    assert "no seam score" in capsys.readouterr().out


def test_equal_stacks(stacks, tmp_path, capsys):
    others = ["--reference", stacks["hr"], "--lr", stacks["lr"]]
    assert main([stacks["hr"], *others, "--output", "same"]) == 0
    same = report_of(tmp_path / "same")["mean"]["sr"]
    assert (same["psnr"], same["ssim"], same["detail"]) == ("inf", 1.0, 1.0)
    assert "inf" in capsys.readouterr().out


@pytest.mark.parametrize("dtype, data_range", [("uint16", 65535), ("float32", 6)])
def test_grey_stacks_with_an_explicit_range(dtype, data_range, tmp_path):
    """16 bit by its type, floats by the range the SR file records; never by the image."""
    hr = smooth_images(dtype, channels=1, num_images=2)
    shrunk = np.stack([imresize(image[..., 0], scale=0.5) for image in hr])
    lr = write_stack(tmp_path / "lr.h5", shrunk)
    sr = (hr * 0.98).astype(dtype)
    ours = write_ours(tmp_path / "sr.h5", lr, {"sr": sr}, value_range=[-2.5, 3.5])
    others = ["--reference", write_stack(tmp_path / "hr.h5", hr), "--lr", lr]
    assert main([ours, *others, "--output", "out"]) == 0
    report = report_of(tmp_path / "out")
    assert report["data_range"] == data_range
    for index in range(2):
        expected = metrics.psnr(sr[index], hr[index], data_range)
        assert report["images"][index]["sr"]["psnr"] == pytest.approx(expected, abs=1e-4)


def test_floats_without_a_recorded_range_use_that_of_the_whole_hr_stack(tmp_path):
    dim = smooth_images("float32", num_images=2)
    hr = dim * np.array([1, 10], dtype=np.float32).reshape(2, 1, 1, 1)
    lr = np.stack([imresize(image, scale=0.5) for image in hr])
    files = [write_stack(tmp_path / f"{name}.h5", images)
             for name, images in [("sr", hr + 0.25), ("hr", hr), ("lr", lr)]]
    assert main([files[0], "--reference", files[1], "--lr", files[2], "--output", "out"]) == 0
    report = report_of(tmp_path / "out")
    with Stack.open(files[1]) as stack:
        assert report["data_range"] == stack.range().high - stack.range().low
    first, second = (image["sr"]["psnr"] for image in report["images"])
    assert first == pytest.approx(second, abs=1e-3), \
        "the same error counts the same in a dim and in a bright image"


def test_nan_pixels_are_left_out_of_all_versions_and_counted(tmp_path, capsys):
    hr = smooth_images("float32", num_images=2)
    lr = np.stack([imresize(image, scale=0.5) for image in hr])
    sr = hr + np.random.default_rng(0).normal(0, 0.01, hr.shape).astype(np.float32)
    sr[1, 10:12, 20:24] = np.nan
    hr[1, 30, 30, 0] = np.nan
    lr[1, 5, 10:12] = np.nan
    files = [write_stack(tmp_path / f"{name}.h5", images)
             for name, images in [("sr", sr), ("hr", hr), ("lr", lr)]]
    assert main([files[0], "--reference", files[1], "--lr", files[2], "--output", "out"]) == 0
    report = report_of(tmp_path / "out")
    assert [image["nan_pixels"] for image in report["images"]] == [0, 9]
    assert "9 pixels in 1 images are NaN" in capsys.readouterr().out
    for version in ("bicubic", "sr"):
        figures = report["images"][1][version]
        values = [figures[name] for name in ("psnr", "ssim", "lr_psnr", "detail")]
        assert np.isfinite(values).all(), figures
        assert figures["psnr"] == pytest.approx(report["images"][0][version]["psnr"], abs=2)


def test_all_versions_lack_the_same_pixels(stacks, tmp_path):
    hr, sr = (stacks["images"][name].astype(np.float32) for name in ("hr", "sr"))
    hr[0, 3, 4, 0] = sr[0, 5, 6:8] = np.nan
    files = [write_stack(tmp_path / f"{name}.h5", images) for name, images in
             [("a", sr), ("b", hr), ("c", stacks["images"]["lr"].astype(np.float32))]]
    with ExitStack() as opened:
        _, versions, nan_pixels = open_compared(check_compared(*files), opened).read(0)
    expected = np.zeros(hr.shape[1:3], dtype=bool)
    expected[3, 4] = expected[5, 6:8] = True
    assert nan_pixels == 3 and list(versions) == ["bicubic", "sr", "hr"]
    assert all((np.isnan(version) == expected[..., None]).all() for version in versions.values())


def test_failed_images_are_named_and_left_out(stacks, tmp_path, capsys):
    sr = stacks["images"]["sr"]
    some = write_ours(tmp_path / "some.h5", stacks["lr"], {"sr": sr}, failed=(1,))
    assert main([some, "--reference", stacks["hr"], "--output", "out"]) == 0
    assert [image["image"] for image in report_of(tmp_path / "out")["images"]] == [0, 2]
    assert "gave them up: images 1" in capsys.readouterr().out
    none = write_ours(tmp_path / "none.h5", stacks["lr"], {"sr": sr}, failed=(0, 1, 2))
    assert "gave up all 3 images" in complaint(capsys, none, "--reference", stacks["hr"])


def test_lpips_from_torch_home_or_a_named_file(stacks, tmp_path, capsys):
    backbone = write_backbone(tmp_path / "torch")
    compare = [stacks["sr"], "--reference", stacks["hr"]]
    assert main([*compare, "--output", "home"]) == 0
    assert "LPIPS is unavailable" not in capsys.readouterr().out
    os.rename(backbone, tmp_path / "alexnet.pth")
    named = ["--lpips-backbone", str(tmp_path / "alexnet.pth")]
    assert main([*compare, "--output", "file", *named]) == 0
    home, named = report_of(tmp_path / "home"), report_of(tmp_path / "file")
    assert home["images"] == named["images"]
    assert 0 < home["mean"]["sr"]["lpips"] < home["mean"]["bicubic"]["lpips"]
    capsys.readouterr()
    assert "found no file" in complaint(capsys, *compare, "--lpips-backbone", "absent.pth")


def test_stacks_that_do_not_fit_are_refused(stacks, tmp_path, capsys):
    sr, hr, images = stacks["sr"], stacks["hr"], stacks["images"]
    fewer = write_stack(tmp_path / "fewer.h5", images["hr"][:2])
    smaller = write_stack(tmp_path / "smaller.h5", images["hr"][:, :60])
    grey = write_stack(tmp_path / "grey.h5", images["hr"][..., 0])
    floats = write_stack(tmp_path / "floats.h5", images["hr"].astype(np.float32))
    for reference, came in [(fewer, "got 2 images of 64 x 48"),
                            (smaller, "got 3 images of 60 x 48"),
                            (grey, "with 1 channels"), (floats, "expected float32")]:
        assert came in complaint(capsys, sr, "--reference", reference)
    for lr in (hr, fewer, grey, write_stack(tmp_path / "slim.h5", images["lr"][:, :, :12])):
        assert "made smaller" in complaint(capsys, sr, "--reference", hr, "--lr", lr)
    assert "name the LR stack" in complaint(capsys, grey, "--reference", grey)


def test_bad_input_is_one_line(stacks, tmp_path, capsys):
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    sr, hr = stacks["sr"], stacks["hr"]
    assert "absent.h5" in complaint(capsys, "absent.h5", "--reference", hr)
    assert "expected an HDF5 file" in complaint(capsys, sr, "--reference", str(text))
    assert "/nowhere" in complaint(capsys, sr, "--reference", f"{hr}::/nowhere")
    assert "unknown key" in complaint(capsys, sr, "--reference", hr, "--set", "sampler.stepz=3")
    assert "expected an SR stack, or" in complaint(capsys, "--reference", hr)
    assert main([sr, "--reference", hr, "--output", str(text / "below")]) == 2
    assert "cannot make this folder" in capsys.readouterr().err


def test_dry_run_validates_and_writes_nothing(stacks, tmp_path, capsys):
    assert main([stacks["sr"], "--reference", stacks["hr"], "--output", "out", "--dry-run"]) == 0
    assert "3 images of 64 x 48 px with 3 channels" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_help_needs_neither_torch_nor_a_file():
    program = ("import sys; from swinmpi.cli.evaluate import parser; parser().format_help(); "
               "print('torch' in sys.modules)")
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              timeout=60, check=True)
    assert finished.stdout.strip() == "False"


def test_a_table_is_aligned():
    table = format_table(["image", "PSNR"], [["0", "28.19"], ["mean", "9.5"]]).splitlines()
    assert table == ["image   PSNR", "-----  -----", "0      28.19", "mean     9.5"]


def test_fid_is_of_all_images_together(stacks, tmp_path, capsys):
    inception = write_inception(tmp_path / "torch")
    compared = [stacks["sr"], "--reference", stacks["hr"], "--lr", stacks["lr"]]
    assert main([*compared, "--output", "found"]) == 0
    assert main([*compared, "--inception", str(inception), "--output", "named"]) == 0
    report, text = report_of(tmp_path / "named"), capsys.readouterr().out
    assert report["mean"] == report_of(tmp_path / "found")["mean"]
    mean = report["mean"]
    assert 0 <= mean["regression"]["fid"] < mean["bicubic"]["fid"]
    assert f"{mean['sr']['fid']:.2f}" in text and "FID is unavailable" not in text
    assert all("fid" not in image["sr"] for image in report["images"])


def test_fid_without_its_weights(stacks, tmp_path, capsys):
    compared = [stacks["sr"], "--reference", stacks["hr"]]
    assert main([*compared, "--output", "out"]) == 0
    assert report_of(tmp_path / "out")["mean"]["sr"]["fid"] is None
    assert "FID is unavailable: " in capsys.readouterr().out
    told = complaint(capsys, *compared, "--inception", "absent.pth")
    assert "absent.pth: expected Inception's weights, found no file" in told


def test_stacks_side_by_side(stacks, tmp_path):
    other = write_ours(tmp_path / "other.h5", stacks["lr"], {"sr": stacks["images"]["regression"]},
                       failed=(0,))
    both = {"ours": stacks["sr"], "theirs": other}
    one, two = (sheet_of_stacks(named, stacks["hr"], stacks["lr"])
                for named in ({"ours": stacks["sr"]}, both))
    assert two.width - one.width == pytest.approx((one.width - 56) / 5, rel=0.3)
    assert one.height / two.height == pytest.approx(3 / 2, rel=0.1), "image 0 is not in both"
    with pytest.raises(ConfigError, match="in every stack, 0 to 2, got 0"):
        sheet_of_stacks(both, stacks["hr"], stacks["lr"], images=[0, 1])
