"""Contact sheets hold what they were given."""
import numpy as np
import pytest
from PIL import Image

from swinmpi.images import contact_sheet

COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 10]], dtype=np.uint8)


def colours_in(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in sheet.getcolors(sheet.width * sheet.height)}


def flat(colour: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.broadcast_to(colour, (height, width, 3)).copy()


def test_a_sheet_enlarges_small_tiles_by_whole_pixels():
    lr = np.stack([COLOURS[:2], COLOURS[2:]])  # 2 x 2 pixels
    hr = np.zeros((60, 60, 3), dtype=np.uint8)
    sheet = np.asarray(contact_sheet.contact_sheet([[lr, hr]], ["LR", "HR"], [["", "30.1 dB"]],
                                                   tile_px=130))
    for colour in COLOURS:
        area = (sheet == colour).all(axis=2).sum()
        assert area == 60 * 60, "2 LR pixels are as wide as 2 x 60 px"


def test_a_sheet_leaves_out_rows_beyond_the_limit_and_shrinks_large_tiles():
    rows = [[flat(colour, 200, 100)] for colour in COLOURS]
    sheet = contact_sheet.contact_sheet(rows, ["SR"], [[""]] * 4, max_rows=2, tile_px=50)
    present = colours_in(sheet)
    assert [tuple(map(int, colour)) in present for colour in COLOURS] == [True, True, False, False]
    assert sheet.width < 100 and sheet.height < 250


def test_captions_make_room_for_their_lines():
    rows = [[flat(COLOURS[0], 32, 32)]]
    heights = [contact_sheet.contact_sheet(rows, ["SR"], [[text]]).height
               for text in ("", "a", "a\nb")]
    assert heights[1] - heights[0] == heights[2] - heights[1] == contact_sheet.CAPTION_LINE_PX


@pytest.mark.parametrize("shape", [(48, 36), (48, 36, 1), (48, 36, 3), (3, 2), (300, 9, 3)])
def test_any_shape_can_be_shown(shape):
    hr = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tiles = contact_sheet.closeup_row(hr[::2, ::2], [hr, hr])
    sheet = contact_sheet.contact_sheet([tiles], ["", "LR", "SR", "HR"], [["", "", "1", "2"]])
    assert sheet.mode == "RGB" and sheet.width > 4 * 9


def test_a_closeup_is_where_the_detail_is_and_the_same_part_everywhere():
    hr = np.zeros((240, 300, 3), dtype=np.uint8)
    hr[150:200, 210:260] = np.random.default_rng(0).integers(0, 256, (50, 50, 3))
    sr = hr // 2
    whole, lr_part, sr_part, hr_part = contact_sheet.closeup_row(hr[::2, ::2], [sr, hr])
    assert (hr_part.shape, lr_part.shape) == ((96, 96, 3), (48, 48, 3))
    detail, all_detail = ((image > 0).any(axis=2).sum() for image in (hr_part, hr))
    assert detail == all_detail, "all of the detail is in the closeup"
    assert np.array_equal(sr_part, hr_part // 2)
    assert np.array_equal(lr_part, hr_part[::2, ::2])
    assert (whole == [0xff, 0xcf, 0x33]).all(axis=2).any(), "the frame is drawn"


def test_values_become_grey_levels_by_the_given_range():
    image = np.array([[-1.0, 0.0, 0.5], [1.0, 2.0, np.nan]])
    assert contact_sheet.to_uint8(image, 0.0, 1.0).tolist() == [[0, 0, 128], [255, 255, 0]]
    assert contact_sheet.to_uint8(np.full((2, 2), 7.0), 7.0, 7.0).tolist() == [[0, 0], [0, 0]]
