"""The published benchmarks, on small fake data of their true layouts and on damaged copies."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from core.data.benchmarks import (
    BENCHMARKS,
    TRAINING_PAIRS,
    open_benchmark,
    open_training_pairs,
)
from core.data.safa_polar import safa_polar
from core.errors import DataError, SettingError
from tests import fake_benchmarks as fake

WRITERS = {
    "cvusa": fake.write_cvusa,
    "cvact": fake.write_cvact,
    "vigor": fake.write_vigor,
    "university": fake.write_university,
    "cub": fake.write_cub,
    "cars": fake.write_cars,
    "products": fake.write_products,
}
ALL = [
    *((open_benchmark, name) for name in BENCHMARKS),
    *((open_training_pairs, name) for name in TRAINING_PAIRS),
]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[str, Path]:
    """One undamaged copy of each data set, not to be written to."""
    folder = tmp_path_factory.mktemp("benchmarks")
    roots = {name: write(folder / name) for name, write in WRITERS.items()}
    fake.write_vigor(roots["vigor"], corrected=True)
    return roots


@pytest.fixture
def copy(clean, tmp_path):
    """A copy of one data set that a test may damage."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(clean[name], tmp_path / name))

    return copied


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def one_sentence(error: pytest.ExceptionInfo[DataError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert ": got " in text
    assert "expected " in text
    assert all(word in text for word in words), text


# What all of them have in common


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_opens_and_every_answer_is_in_its_gallery(clean, name):
    benchmark = open_benchmark(name, clean[name.partition("-")[0]])
    count = len(benchmark.references)
    assert len(benchmark.queries) == len(benchmark.positives) == len(benchmark.ignored) > 0
    assert benchmark.skipped == 0
    assert benchmark.protocol.endswith(".")
    for right, aside in zip(benchmark.positives, benchmark.ignored, strict=True):
        assert right.dtype == aside.dtype == np.int64
        assert len(right)
        assert 0 <= right.min() <= right.max() < count
        assert not set(right) & set(aside)
    for images in (benchmark.queries, benchmark.references):
        picture = images.open(len(images) - 1)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert picture.flags.writeable
        assert all(not Path(file).is_absolute() for file in images.files)


@pytest.mark.parametrize("name", TRAINING_PAIRS)
def test_every_training_set_opens(clean, name):
    pairs = open_training_pairs(name, clean[name.partition("-")[0]])
    assert pairs.aerial_of.shape == (len(pairs.ground),)
    assert pairs.semi_positives.shape[0] == len(pairs.ground)
    assert 0 <= pairs.aerial_of.min() <= pairs.aerial_of.max() < len(pairs.aerial)
    assert pairs.ground.open(0).ndim == pairs.aerial.open(0).ndim == 3


@pytest.mark.parametrize(("opening", "name"), ALL)
def test_a_missing_data_set_says_where_it_looked_and_whom_to_ask(tmp_path, opening, name):
    with pytest.raises(DataError) as error:
        opening(name, tmp_path / "nowhere")
    one_sentence(error, str(tmp_path / "nowhere"), "expected this tree")
    source = {
        "cvusa": "Kentucky",
        "cvact": "OriCNN",
        "vigor": "request form",
        "university": "request form",
        "cub": "Caltech",
        "cars": "Stanford AI Lab",
        "products": "Stanford CVGL",
    }
    assert source[name.partition("-")[0]] in str(error.value)


def test_unknown_names_list_the_known_ones(tmp_path):
    for opening, known in (
        (open_benchmark, "cvact-val"),
        (open_training_pairs, "vigor-same"),
    ):
        with pytest.raises(SettingError, match=known):
            opening("cityscapes", tmp_path)


# CVUSA


def test_cvusa_rows_are_identities_in_the_order_of_a_list_without_header(clean):
    root = clean["cvusa"]
    rows = [line.split(",") for line in (root / "splits/val-19zl.csv").read_text().splitlines()]
    benchmark = open_benchmark("cvusa", root)
    assert len(rows) == 4
    assert [f"bingmap/{file}" for file in benchmark.references.files] == [row[0] for row in rows]
    assert [f"streetview/{file}" for file in benchmark.queries.files] == [row[1] for row in rows]
    assert [list(right) for right in benchmark.positives] == [[0], [1], [2], [3]]
    assert len(open_training_pairs("cvusa", root).ground) == 6
    assert benchmark.queries.open(0).shape == (16, 88, 3)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("bingmap/19/0000001.jpg", ("row 1", "annotation path")),
        ("a,b,c,d", ("row 1", "annotation path")),
        ('"bingmap/19/1.jpg","streetview/panos/1.jpg",""', ("row 1", "without quotes")),
        ("satellite,street,annotation", ("row 1", "begins with bingmap/")),
        ("bingmap/../../etc/passwd,streetview/panos/1.jpg,x", ("row 1", "inside")),
        ("/etc/passwd,streetview/panos/1.jpg,x", ("row 1", "inside")),
        ("bingmap/19/1.jpg,streetview\\..\\..\\1.jpg,x", ("row 1", "inside")),
        ("C:/19/1.jpg,streetview/panos/1.jpg,x", ("row 1", "inside")),
        (",streetview/panos/1.jpg,x", ("row 1", "inside")),
        ("bingmap/19/\0.jpg,streetview/panos/1.jpg,x", ("row 1", "inside")),
        ("bingmap/19/none.jpg,streetview/panos/none.jpg,x", ("4 of 5 listed files", "none.jpg")),
    ],
)
def test_cvusa_refuses_a_damaged_list(copy, row, words):
    root = copy("cvusa")
    path = root / "splits/val-19zl.csv"
    path.write_text(f"{row}\n{path.read_text()}")
    with pytest.raises(DataError) as error:
        open_benchmark("cvusa", root)
    one_sentence(error, "CVUSA", *words)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00binary"])
def test_a_list_that_is_empty_or_no_text_is_refused(copy, content):
    root = copy("cvusa")
    (root / "splits/val-19zl.csv").write_bytes(content)
    with pytest.raises(DataError) as error:
        open_benchmark("cvusa", root)
    one_sentence(error, "val-19zl.csv")


def test_a_list_written_on_windows_reads_the_same(copy):
    root = copy("cvusa")
    path = root / "splits/val-19zl.csv"
    before = open_benchmark("cvusa", root)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    after = open_benchmark("cvusa", root)
    assert after.references.files == before.references.files


# Pictures and polar views


def test_a_polar_root_replaces_the_aerial_pictures(copy):
    root = copy("cvusa")
    benchmark = open_benchmark("cvusa", root)
    for file in benchmark.references.files:
        fake.write_picture(root / "polarmap" / file.replace(".jpg", ".png"), 616, 112)
    polar = replace(benchmark, references=benchmark.references.from_polar_root(root / "polarmap"))
    assert polar.references.files[0].endswith(".png")
    assert polar.references.root == root / "polarmap"
    assert polar.references.open(0).shape == (112, 616, 3)
    assert polar.queries == benchmark.queries


def test_a_polar_root_in_the_manner_of_saigs_authors_keeps_the_names(copy):
    root = copy("cvusa")
    references = open_benchmark("cvusa", root).references
    for file in references.files:
        fake.write_picture(root / "theirs/bingmap" / file, 616, 112)
    polar = references.from_polar_root(root / "theirs/bingmap")
    assert polar.files == references.files
    assert polar.open(1).shape == (112, 616, 3)


def test_an_incomplete_polar_root_is_refused(copy):
    root = copy("cvact")
    aerial = open_training_pairs("cvact", root).aerial
    fake.write_picture(root / "polarmap" / aerial.files[0].replace(".jpg", ".png"), 616, 112)
    with pytest.raises(DataError) as error:
        aerial.from_polar_root(root / "polarmap")
    one_sentence(error, "none for 5 of 6", aerial.files[1].replace(".jpg", ".png"))


def test_a_computed_polar_view_is_the_rounded_transform(clean):
    references = open_benchmark("cvusa", clean["cvusa"]).references
    expected = np.rint(safa_polar(references.open(2)))
    np.testing.assert_array_equal(references.as_polar().open(2), expected)


def test_a_panorama_has_no_polar_view(clean):
    with pytest.raises(DataError) as error:
        open_benchmark("cvusa", clean["cvusa"]).queries.as_polar().open(0)
    one_sentence(error, "Polar transform")


def test_cvact_panoramas_keep_the_middle_half_of_their_height(copy):
    root = copy("cvact")
    queries = open_benchmark("cvact-val", root).queries
    rows = np.repeat(np.arange(832, dtype=np.uint16)[:, None] // 208, 1664, 1)
    Image.fromarray((60 * rows).astype(np.uint8)).save(queries.root / queries.files[0], quality=100)
    cropped = queries.open(0)
    assert cropped.shape == (416, 1664, 3)
    assert {int(value) for value in np.unique(cropped // 20 * 20)} == {60, 120}
    assert abs(int(cropped[207, 0, 0]) - 60) < 5
    assert abs(int(cropped[208, 0, 0]) - 120) < 5


def test_a_panorama_that_was_cropped_already_is_refused(copy):
    root = copy("cvact")
    queries = open_benchmark("cvact-val", root).queries
    fake.write_picture(queries.root / queries.files[0], 616, 112)
    with pytest.raises(DataError) as error:
        queries.open(0)
    one_sentence(error, "616 x 112")


def test_a_picture_that_is_damaged_or_gone_is_named(copy):
    root = copy("cvusa")
    queries = open_benchmark("cvusa", root).queries
    (queries.root / queries.files[0]).write_text("no picture")
    (queries.root / queries.files[1]).unlink()
    whole = (queries.root / queries.files[2]).read_bytes()
    (queries.root / queries.files[2]).write_bytes(whole[: len(whole) // 2])
    for index in range(3):
        with pytest.raises(DataError) as error:
            queries.open(index)
        one_sentence(error, queries.files[index])


# CVACT


def test_the_fake_mat_file_is_nested_as_the_original(clean):
    mat = loadmat(clean["cvact"] / "ACT_data.mat")
    assert mat["trainSet"]["trainInd"][0][0].shape == (6, 1)
    assert "streetview/" + mat["panoIds"][0] + "_grdView.jpg"
    assert mat["trainSet"]["trainInd"][0][0][0][0] == 6


def test_cvact_counts_from_one_and_each_split_has_its_folder(clean):
    root = clean["cvact"]
    pairs = open_training_pairs("cvact", root)
    assert pairs.ground.files == tuple(f"{fake.pano_id(k)}_grdView.jpg" for k in range(5, 11))
    assert pairs.ground.root == root / "ANU_data_small/streetview"
    val = open_benchmark("cvact-val", root)
    assert val.references.files == tuple(
        f"{fake.pano_id(k)}_satView_polish.jpg" for k in range(11, 15)
    )
    assert [list(right) for right in val.positives] == [[0], [1], [2], [3]]
    test = open_benchmark("cvact-test", root)
    assert test.references.root == root / "ANU_data_test/satview_polish"
    assert test.query_xy_m is not None
    np.testing.assert_array_equal(test.query_xy_m[4], [690_400, 6_090_000])


def test_cvact_test_counts_what_is_within_five_metres(clean):
    test = open_benchmark("cvact-test", clean["cvact"])
    assert [list(right) for right in test.positives] == [[0, 1], [1, 0], [2], [3], [4]]


def test_exactly_five_metres_count(copy):
    root = copy("cvact")
    ids = [fake.pano_id(number) for number in range(15)]
    utm = np.stack([100.0 * np.arange(15), np.zeros(15)], axis=1)
    utm[1] = [3, 4]
    utm[2] = [-3, -4.001]
    rows = {"test": np.arange(1, 6), "train": np.arange(6, 12), "val": np.arange(12, 16)}
    fake.write_act_data(root, ids, utm, rows)
    test = open_benchmark("cvact-test", root)
    assert [list(right) for right in test.positives[:3]] == [[0, 1], [1, 0], [2]]


def test_cvact_skips_and_counts_missing_pictures(copy):
    root = copy("cvact")
    small, large = root / "ANU_data_small", root / "ANU_data_test"
    (small / f"streetview/{fake.pano_id(6)}_grdView.jpg").unlink()
    (small / f"satview_polish/{fake.pano_id(8)}_satView_polish.jpg").unlink()
    (large / f"satview_polish/{fake.pano_id(0)}_satView_polish.jpg").unlink()
    pairs = open_training_pairs("cvact", root)
    assert pairs.skipped == 2
    assert [Path(file).name[:22] for file in pairs.ground.files] == [
        fake.pano_id(k) for k in (5, 7, 9, 10)
    ]
    test = open_benchmark("cvact-test", root)
    assert test.skipped == 1
    assert [list(right) for right in test.positives] == [[0], [1], [2], [3]]
    assert test.query_xy_m is not None
    assert test.query_xy_m[0, 0] == 690_004
    shutil.rmtree(large)
    with pytest.raises(DataError) as error:
        open_benchmark("cvact-test", root)
    one_sentence(error, "ANU_data_test", "OriCNN")


def broken_mat(**changed) -> dict:
    """The variables of a small ACT_data.mat with some of them changed or, if None, left out."""
    variables = {
        "panoIds": np.asarray([fake.pano_id(number) for number in range(3)]),
        "utm": np.zeros((3, 2)),
        "trainSet": {"trainInd": np.ones((1, 1))},
        "valSet": {"valInd": np.asarray([[1.0], [3.0]])},
        "valSetAll": {"valInd": np.ones((1, 1))},
    }
    variables.update(changed)
    return {name: value for name, value in variables.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"valSet": {"valInd": np.asarray([[1], [4]])}}, ("index 4", "from 1 to 3")),
        ({"valSet": {"valInd": np.asarray([[0], [1]])}}, ("index 0", "from 1 to 3")),
        ({"valSet": {"valInd": np.asarray([[1.5]])}}, ("whole numbers",)),
        ({"valSet": {"valInd": np.asarray([[np.nan]])}}, ("whole numbers",)),
        ({"valSet": {"valInd": np.asarray([[np.inf]])}}, ("whole numbers",)),
        ({"valSet": {"valInd": np.empty((0, 1))}}, ("whole numbers",)),
        ({"valSet": {"valInd": "text"}}, ("whole numbers",)),
        ({"valSet": {"trainInd": np.ones((1, 1))}}, ("valSet.valInd",)),
        ({"valSet": np.ones((2, 2))}, ("valSet.valInd",)),
        ({"valSet": None}, ("no variable valSet",)),
        ({"utm": None}, ("no variable utm",)),
        ({"utm": np.zeros((2, 2))}, ("3 x 2",)),
        ({"utm": np.full((3, 2), np.nan)}, ("3 x 2",)),
        ({"panoIds": np.arange(3.0)}, ("panoIds", "string")),
        ({"panoIds": np.asarray(["../../etc/x", "b", "c"])}, ("panoIds", "inside")),
        ({"panoIds": np.asarray(["a/b", "b", "c"])}, ("panoIds", "without a folder")),
    ],
)
def test_cvact_refuses_a_damaged_mat_file(tmp_path, changed, words):
    savemat(tmp_path / "ACT_data.mat", broken_mat(**changed))
    with pytest.raises(DataError) as error:
        open_benchmark("cvact-val", tmp_path)
    one_sentence(error, "CVACT", "ACT_data.mat", *words)


@pytest.mark.parametrize("cut", [0, 60, 200, 900])
def test_text_or_half_a_file_is_no_mat_file(tmp_path, cut):
    path = tmp_path / "ACT_data.mat"
    savemat(path, broken_mat())
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] if cut else b"panoIds,utm\n" * 40)
    with pytest.raises(DataError) as error:
        open_benchmark("cvact-val", tmp_path)
    one_sentence(error, "ACT_data.mat")


def test_names_in_a_cell_array_read_the_same(copy):
    root = copy("cvact")
    before = open_benchmark("cvact-val", root)
    mat = loadmat(root / "ACT_data.mat")
    cells = np.empty((15, 1), object)
    cells[:, 0] = list(mat["panoIds"])
    groups = ("utm", "trainSet", "valSet", "valSetAll")
    savemat(root / "ACT_data.mat", {"panoIds": cells, **{name: mat[name] for name in groups}})
    assert open_benchmark("cvact-val", root).queries.files == before.queries.files


# VIGOR


def test_vigors_gallery_has_the_cities_in_the_published_order(clean):
    references = open_benchmark("vigor-same", clean["vigor"]).references
    cities = [file.partition("/")[0] for file in references.files]
    expected = ["NewYork"] * 9 + ["Seattle"] * 12 + ["SanFrancisco"] * 15 + ["Chicago"] * 18
    assert cities == expected
    listed = (clean["vigor"] / "splits/Seattle/satellite_list.txt").read_text().splitlines()
    assert references.files[9:21] == tuple(f"Seattle/satellite/{name}" for name in listed)


def test_vigors_positive_is_first_and_semi_positives_are_ignored(clean):
    root = clean["vigor"]
    benchmark = open_benchmark("vigor-same", root)
    lines = [
        (city, line.split())
        for city in fake.CITY_ORIGINS
        for line in (root / f"splits/{city}/same_area_balanced_test.txt").read_text().splitlines()
    ]
    assert len(lines) == len(benchmark.queries) == 8
    for query, (city, fields) in enumerate(lines):
        assert benchmark.queries.files[query] == f"{city}/panorama/{fields[0]}"
        right, aside = benchmark.positives[query], benchmark.ignored[query]
        names = [Path(benchmark.references.files[row]).name for row in (*right, *aside)]
        assert names == [fields[1], fields[4], fields[7], fields[10]]


def test_cross_area_trains_in_two_cities_and_tests_in_the_others(clean):
    root = clean["vigor"]
    benchmark = open_benchmark("vigor-cross", root)
    pairs = open_training_pairs("vigor-cross", root)
    assert [file.partition("/")[0] for file in benchmark.queries.files] == (
        ["SanFrancisco"] * 6 + ["Chicago"] * 6
    )
    assert len(benchmark.references) == 15 + 18
    assert {file.partition("/")[0] for file in pairs.ground.files} == {"NewYork", "Seattle"}
    assert len(pairs.aerial) == 9 + 12
    assert pairs.semi_positives.shape == (12, 3)
    assert len(open_training_pairs("vigor-same", root).ground) == 16


@pytest.mark.parametrize("name", ["vigor-same", "vigor-same-corrected", "vigor-cross-corrected"])
def test_offsets_lead_from_the_tile_to_the_camera(clean, name):
    places = open_benchmark(name, clean["vigor"]).places
    assert places is not None
    tile_lat = places.reference_lat_deg[places.tiles]
    tile_lon = places.reference_lon_deg[places.tiles]
    north = (places.query_lat_deg[:, None] - tile_lat) * fake.METRES_PER_DEGREE
    east = (places.query_lon_deg[:, None] - tile_lon) * fake.METRES_PER_DEGREE
    east = east * np.cos(np.radians(tile_lat))
    np.testing.assert_allclose(places.camera_offset_m, np.stack([east, north], -1), atol=0.1)
    assert (np.hypot(*places.camera_offset_m[:, 0].T) < 30).all()


def test_only_the_corrected_labels_have_each_citys_own_resolution(clean):
    nominal = open_benchmark("vigor-same", clean["vigor"]).places
    corrected = open_benchmark("vigor-same-corrected", clean["vigor"]).places
    assert nominal is not None
    assert corrected is not None
    assert set(nominal.pixel_m) == {0.114}
    mercator = 156543.03392 / 2**20 * np.cos(np.radians(corrected.query_lat_deg))
    np.testing.assert_allclose(corrected.pixel_m, mercator, rtol=0.005)


SEATTLE_TEST = "splits/Seattle/same_area_balanced_test.txt"


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (SEATTLE_TEST, "fake", "too few\nfake", ("row 1", "2 columns", "13")),
        (SEATTLE_TEST, "fakeSeattle0004", "../../0004", ("row 1", "inside")),
        (SEATTLE_TEST, "fakeSeattle0004", "a/0004", ("row 1", "without a folder")),
        (SEATTLE_TEST, "satellite_47", "satellite_48", ("row 1", "Seattle's tiles")),
        (SEATTLE_TEST, ".png ", ".png x", ("row 1", "a number")),
        (SEATTLE_TEST, ".png ", ".png nan ", ("row 1", "14 columns")),
        (SEATTLE_TEST, "fakeSeattle0004", "gone", ("7 of 8", "gone,")),
        ("splits/NewYork/satellite_list.txt", "satellite", "../x", ("row 1", "inside")),
        ("splits/Chicago/satellite_list.txt", "sat", "no_1_2.png\nsat", ("54 of 55", "no_1_2")),
    ],
)
def test_vigor_refuses_damaged_lists(copy, file, old, new, words):
    root = copy("vigor")
    edit(root / file, old, new)
    with pytest.raises(DataError) as error:
        open_benchmark("vigor-same", root)
    one_sentence(error, "VIGOR", *words)


def test_vigor_refuses_a_tile_listed_twice(copy):
    root = copy("vigor")
    path = root / "splits/NewYork/satellite_list.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0])
    with pytest.raises(DataError) as error:
        open_benchmark("vigor-same", root)
    one_sentence(error, "row 10", "second time")


@pytest.mark.parametrize("name", ["fake.jpg", "fake,north,west,.jpg", "fake,91.0,0.0,.jpg"])
def test_vigor_refuses_a_panorama_without_a_place(copy, name):
    root = copy("vigor")
    path = root / SEATTLE_TEST
    fake.write_picture(root / "Seattle/panorama" / name, 128, 64)
    path.write_text(" ".join([name, *path.read_text().splitlines()[0].split()[1:]]))
    with pytest.raises(DataError) as error:
        open_benchmark("vigor-same", root)
    one_sentence(error, name)


# University-1652


def test_university_asks_in_both_directions_among_distractors(clean):
    drone = open_benchmark("university-drone", clean["university"])
    assert (len(drone.queries), len(drone.references)) == (12, 5)
    assert [list(right) for right in drone.positives] == [[0]] * 4 + [[1]] * 4 + [[2]] * 4
    satellite = open_benchmark("university-satellite", clean["university"])
    assert (len(satellite.queries), len(satellite.references)) == (3, 20)
    assert [list(right) for right in satellite.positives] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert satellite.references.files[4].startswith("0002/image-01")


def test_university_trains_every_drone_picture_on_its_satellite_picture(clean):
    pairs = open_training_pairs("university", clean["university"])
    assert len(pairs.aerial) == 3
    for row, file in enumerate(pairs.ground.files):
        assert pairs.aerial.files[pairs.aerial_of[row]].split("/")[0] == file.split("/")[0]


def test_university_refuses_a_building_without_answer(copy):
    root = copy("university")
    shutil.rmtree(root / "test/gallery_satellite/0002")
    shutil.rmtree(root / "train/satellite/0840")
    with pytest.raises(DataError, match="gallery_satellite/0002"):
        open_benchmark("university-drone", root)
    with pytest.raises(DataError, match="train/satellite/0840"):
        open_training_pairs("university", root)


def test_university_overlooks_what_is_no_picture(copy):
    root = copy("university")
    folder = root / "test/query_drone"
    (folder / "0001/._image-01.jpeg").write_text("a Mac wrote this")
    (folder / "0001/Thumbs.db").write_text("Windows wrote this")
    (folder / "notes.txt").write_text("a person wrote this")
    (folder / "0999").mkdir()
    fake.write_picture(folder / ".cache/a.jpg", 8, 8)
    assert len(open_benchmark("university-drone", root).queries) == 12


# Class folders


def test_cub_splits_by_class_not_by_the_classification_list(clean):
    test = open_benchmark("cub", clean["cub"])
    assert {file[:3] for file in test.queries.files} == {"101", "200"}


def test_cars_are_read_by_field_and_split_after_class_98(clean):
    test = open_benchmark("cars", clean["cars"])
    assert test.queries.files == tuple(f"car_ims/{k:06d}.jpg" for k in range(7, 13))


def test_products_come_from_a_list_with_a_header(clean):
    test = open_benchmark("products", clean["products"])
    rows = (clean["products"] / "Ebay_test.txt").read_text().splitlines()[1:]
    assert test.queries.files == tuple(row.split()[-1] for row in rows)
    assert "Ebay_train" not in "".join(rows)


@pytest.mark.parametrize("name", ["cub", "cars", "products"])
def test_every_picture_is_a_query_and_never_finds_itself(clean, name):
    benchmark = open_benchmark(name, clean[name])
    assert benchmark.queries == benchmark.references
    per_class = len(benchmark.queries) // {"cub": 2, "cars": 2, "products": 3}[name]
    for own, (right, aside) in enumerate(zip(benchmark.positives, benchmark.ignored, strict=True)):
        assert list(aside) == [own]
        assert own not in right
        assert len(right) == per_class - 1
        assert (right // per_class == own // per_class).all()


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "words"),
    [
        ("cub", "images.txt", "10 101.Fake", "10 ../../101.Fake", ("inside",)),
        ("cub", "images.txt", "10 101", "10 more 101", ("row 10", "3 columns")),
        ("cub", "images.txt", "10 101", "99 101", ("picture ids",)),
        ("cub", "image_class_labels.txt", "10 101", "10 bird", ("class 'bird'",)),
        ("cub", "images.txt", "Bird_0010", "Bird_9999", ("5 of 6", "Bird_9999")),
        ("products", "Ebay_test.txt", "image_id", "id", ("row 1", "image_id class_id")),
        ("products", "Ebay_test.txt", "7 4 1 ", "7 4 ", ("row 2", "3 columns")),
        ("products", "Ebay_test.txt", "7 4 1 ", "7 -4 1 ", ("row 2", "class '-4'")),
        ("products", "Ebay_test.txt", "bicycle_final", "/etc", ("row 2", "inside")),
        ("products", "Ebay_test.txt", "7 4 1", "7 9 1", ("only picture",)),
    ],
)
def test_damaged_lists_of_classes_are_refused(copy, name, file, old, new, words):
    root = copy(name)
    edit(root / file, old, new)
    with pytest.raises(DataError) as error:
        open_benchmark(name, root)
    one_sentence(error, *words)


def test_other_annotations_of_cars_are_refused(copy):
    root = copy("cars")
    savemat(root / "cars_annos.mat", {"annotations": np.ones((1, 3))})
    with pytest.raises(DataError, match="relative_im_path and class"):
        open_benchmark("cars", root)
    (root / "cars_annos.mat").write_text("relative_im_path,class\n" * 20)
    with pytest.raises(DataError, match=r"no readable \.mat file"):
        open_benchmark("cars", root)
