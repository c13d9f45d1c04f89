"""Finding images in files of others: links, virtual data sets, near misses, unfinished files."""
import os

import h5py
import numpy as np
import pytest

from swinmpi.errors import CheckpointError, StackError
from swinmpi.storage.header import read_header
from swinmpi.storage.outputs.carrying import carried
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack
from tests.support.sampling import smooth_stack, write_checkpoint, write_stack

IMAGES = smooth_stack(2, 10, 12, dtype="uint8")


def link(path, filename, target="/images"):
    with h5py.File(path, "a") as file:
        file["entry/data/link"] = h5py.ExternalLink(filename, target)
        if "soft" not in file:
            file["soft"] = h5py.SoftLink("/entry/data/link")
    return str(path)


def opened_name(address, **options):
    inspect_stacks([address], **options)
    with Stack.open(address, **options) as stack:
        assert np.array_equal(stack.read(1)[0], IMAGES[1])
        return stack.address.dataset


def test_links_to_other_files_are_searched_where_it_is_allowed(tmp_path):
    write_stack(tmp_path / "data.h5", IMAGES)
    master = link(tmp_path / "master.h5", "data.h5")
    with pytest.raises(StackError, match="found none below /, links to other files, which "
                       "swinmpi-sample follows with --allow-external: "
                       "/entry/data/link -> data.h5"):
        inspect_stacks([master])
    assert opened_name(master, allow_external=True) == "/entry/data/link"
    assert opened_name(f"{master}::/entry", allow_external=True) == "/entry/data/link"


def test_links_through_files_and_back(tmp_path):
    """A group behind a link holds a link of its own, and one that leads back."""
    write_stack(tmp_path / "data.h5", IMAGES)
    inner = link(tmp_path / "inner.h5", "data.h5")
    outer = link(tmp_path / "outer.h5", "inner.h5", "/entry")
    with h5py.File(inner, "a") as file:
        file["entry/back"] = h5py.ExternalLink("outer.h5", "/")
    assert opened_name(outer, allow_external=True) == "/entry/data/link/data/link"


def test_links_that_lead_nowhere_are_named(tmp_path):
    master = link(tmp_path / "master.h5", "gone.h5")
    with pytest.raises(StackError, match="links that lead nowhere: /entry/data/link"):
        inspect_stacks([master], allow_external=True)


def test_several_behind_links_are_listed(tmp_path):
    write_stack(tmp_path / "data.h5", IMAGES)
    master = link(tmp_path / "master.h5", "data.h5")
    write_stack(tmp_path / "more.h5", IMAGES)
    with h5py.File(master, "a") as file:
        file["entry/data/more"] = h5py.ExternalLink("more.h5", "/images")
    with pytest.raises(StackError, match=r"2 datasets look like images \(/entry/data/link, "
                       "/entry/data/more"):
        inspect_stacks([master], allow_external=True)


@pytest.mark.parametrize("named", [".", "itself"])
def test_a_virtual_dataset_of_its_own_file_is_no_other_file(tmp_path, named):
    path = write_stack(tmp_path / "in.h5", IMAGES)
    with h5py.File(path, "a") as file:
        for name, source in (("inner", "images"), ("outer", "inner")):
            layout = h5py.VirtualLayout(IMAGES.shape, IMAGES.dtype)
            layout[...] = h5py.VirtualSource("." if named == "." else "in.h5", source,
                                             IMAGES.shape)
            file.create_virtual_dataset(name, layout)
    assert opened_name(f"{path}::/outer") == "/outer"


def test_a_virtual_dataset_without_its_source_dataset(tmp_path):
    """HDF5 would read zeros; in another file and in its own."""
    write_stack(tmp_path / "other.h5", IMAGES)
    for file_name, external in (("other.h5", True), (".", False)):
        with h5py.File(tmp_path / "in.h5", "w") as file:
            layout = h5py.VirtualLayout(IMAGES.shape, IMAGES.dtype)
            layout[...] = h5py.VirtualSource(file_name, "gone", IMAGES.shape)
            file.create_virtual_dataset("images", layout)
        with pytest.raises(StackError, match="gone is missing, and would be read as zeros"):
            inspect_stacks([str(tmp_path / "in.h5")], allow_external=external)


def test_what_is_refused_names_the_option(tmp_path):
    write_stack(tmp_path / "data.h5", IMAGES)
    master = link(tmp_path / "master.h5", "data.h5")
    with pytest.raises(StackError, match="which is refused; .* swinmpi-sample .*--allow-external"):
        inspect_stacks([f"{master}::/soft"])


def test_near_misses_are_listed(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["data"] = IMAGES > 3
        file["group/image"] = IMAGES[0]
        file["table"], file["text"] = np.zeros((9, 2)), "words"
    with pytest.raises(StackError) as refused:
        inspect_stacks([str(tmp_path / "in.h5")])
    said = str(refused.value)
    assert "found none below /, but /data (2, 10, 12) bool (got dtype bool; " in said
    assert "), /group/image (10, 12) uint8; name" in said
    assert "table" not in said and "text" not in said
    with h5py.File(tmp_path / "in.h5", "a") as file:
        del file["group"]
    with pytest.raises(StackError, match=r"but /data \(2, 10, 12\) bool \(got dtype bool; yes"):
        inspect_stacks([str(tmp_path / "in.h5")])


def test_names_that_are_not_utf8(tmp_path):
    path = write_stack(tmp_path / "in.h5", IMAGES)
    with h5py.File(path, "a") as file:
        file.id.links.create_soft(b"so\xe9", b"/n\xe9x")
        file.id.links.create_external(b"e\xe9", b"f\xe9.h5", b"/x")
        file["images"].attrs[b"k\xe9"] = 1
        file["images"].attrs["v"] = b"\xff"
    for options in ({}, {"allow_external": True}):
        assert opened_name(str(path), **options) == "/images"
    with Stack.open(str(path)) as stack:
        assert carried(stack, scale=2)[0].startswith(r"attribute k\xe9 is left out")
    with h5py.File(tmp_path / "only.h5", "w") as file:
        file[b"im\xe9"] = IMAGES
    with pytest.raises(StackError, match=r"names that are not UTF-8, .* /im\\xe9; name one"):
        inspect_stacks([str(tmp_path / "only.h5")])


@pytest.mark.parametrize("name, told", [
    ("/entry/data/imags", "did you mean /entry/data/images?"),
    ("/ENTRY", "did you mean /entry?"), ("/other", "`h5ls -r {}`"),
    ("/loop", "'loop' is a link to itself"), ("/out", "'out' is a link to another file")])
def test_a_path_that_leads_nowhere(tmp_path, name, told):
    path = write_stack(tmp_path / "in.h5", IMAGES, "entry/data/images")
    with h5py.File(path, "a") as file:
        file["loop"], file["out"] = h5py.SoftLink("/loop"), h5py.ExternalLink("x.h5", "/x")
    with pytest.raises(StackError) as refused:
        inspect_stacks([f"{path}::{name}"])
    assert told.format(path) in str(refused.value)


@pytest.mark.parametrize("swmr, alive", [(True, True), (True, False), (False, False)])
def test_a_file_whose_writer_is_at_work_or_crashed(tmp_path, swmr, alive):
    path, (reading, writing), (waiting, ending) = tmp_path / "in.h5", os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        file = h5py.File(path, "w", libver="latest")
        file["images"] = IMAGES
        if swmr:
            file.swmr_mode = True
        file.flush()
        os.write(writing, b"1")
        os.read(waiting, 1)
        os._exit(0)
    os.read(reading, 1)
    if not alive:
        os.write(ending, b"1")
        os.waitpid(child, 0)
    for read in (lambda: inspect_stacks([str(path)]), lambda: PairReader(path)):
        with pytest.raises(StackError, match=r"is open for writing \(SWMR\), or its writer crashed:"
                           r" wait until the writer has closed it, or run h5clear -s FILE"):
            read()
    if alive:
        os.write(ending, b"1")
        os.waitpid(child, 0)


def test_a_folder_of_a_training_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="got a folder without any; name a file"):
        read_header(tmp_path)
    best = write_checkpoint(tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError, match=f"got a folder; name a file in it: {best}"):
        read_header(tmp_path)
