"""`data check` finds what was hidden in a set that was made for it."""

import html.parser
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lsanet_jax.data import check, quality
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources.folder import load_folder


def picture(seed):
    """A smooth picture with some noise: what recompression leaves alike."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize((48, 40), Image.Resampling.BICUBIC)


def put(root, name, image, **options):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(root / name, **options)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """A set with 3 exact and 3 near duplicates across splits, and more that is wrong."""
    root = tmp_path_factory.mktemp("hidden")
    rows, seed = [], 0

    def add(name, label, split, patient, image):
        put(root, name, image)
        rows.append(f"{name},{label},{split},{patient}")

    for split, count in zip(SPLITS, (20, 8, 8), strict=True):
        for i in range(count):
            add(f"{split}{i}.png", "ab"[i % 2], split, f"P{seed}", picture(seed))
            seed += 1
    for i in range(3):
        add(f"exact{i}.png", "ab"[i % 2], "test", f"E{i}", picture(i))
    near = (
        ("near0.jpg", picture(10)),
        ("near1.png", picture(11).resize((60, 50))),
        ("near2.png", ImageEnhance.Brightness(picture(12)).enhance(0.8)),
    )
    for i, (name, image) in enumerate(near):
        add(name, "ab"[i % 2], "val", f"N{i}", image)
    add("torn.png", "a", "test", "P0", picture(500))
    add("black.png", "b", "train", "B", Image.new("RGB", (48, 40)))
    for i in range(2):
        add(f"rare{i}.png", "rare", ("train", "test")[i], f"R{i}", picture(600 + i))
    for i in range(5):
        (root / f"odd{i}.webp").write_bytes(b"RIFF\x10\0\0\0WEBPVP9 " + bytes(40))
        rows.append(f"odd{i}.webp,a,train,W{i}")
    (root / "slide.svs").write_bytes(b"x")
    (root / "t.csv").write_text("file,label,split,Patient ID\n" + "\n".join(rows) + "\n")
    before = {file: file.stat().st_mtime_ns for file in root.iterdir()}
    report = check.inspect(root, csv="t.csv")
    assert {file: file.stat().st_mtime_ns for file in root.iterdir()} == before
    return report


def section(report, start):
    (found,) = (section for section in report.sections if section.title.startswith(start))
    return found


def test_all_that_is_wrong_is_found_and_nothing_else(hidden):
    assert hidden.is_wrong
    wrong = {part.title: len(part.rows) for part in hidden.sections if part.wrong}
    assert wrong == {
        "Classes with fewer than 3 images, one for each split": 1,
        "Images that cannot be read": 5,
        "Pairs of identical images in several splits: 3": 3,
        "Pairs of nearly identical images in several splits: 3": 3,
        "Odd images": 1,
        "Left out: not images that are read": 1,
        "Patients or other groups in several splits": 1,
    }


def test_what_is_found_is_named(hidden):
    exact = {row[3] for row in section(hidden, "Pairs of identical").rows}
    assert exact == {f"exact{i}.png" for i in range(3)} or exact == {
        f"train{i}.png" for i in range(3)
    }
    near = {name for row in section(hidden, "Pairs of nearly").rows for name in (row[0], row[3])}
    assert near == {
        "near0.jpg",
        "near1.png",
        "near2.png",
        "train10.png",
        "train11.png",
        "train12.png",
    }
    assert section(hidden, "Odd").rows == (("black.png", "black or transparent"),)
    assert {section(hidden, "Patients").rows[0][i] for i in (0, 2)} == {"torn.png", "train0.png"}
    assert section(hidden, "Left out").rows == ((".svs", 1),)
    assert section(hidden, "Classes with").rows == (("rare", 2),)
    assert "WebP" in section(hidden, "Images that cannot").rows[0][1]


def test_counts_sizes_and_formats(hidden):
    (images,) = (part for part in hidden.sections if part.title == "Images")
    assert images.header == ("class", "train", "val", "test", "all")
    assert ("rare", 1, 0, 1, 2) in images.rows
    assert ("60 x 50", 1) in section(hidden, "Sizes").rows
    assert ("JPEG, colour, 8 bits", 1) in section(hidden, "Formats").rows


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.counts = {}

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1


def test_the_page_stands_alone_and_has_a_sheet_for_each_class(hidden, tmp_path):
    check.write(hidden, tmp_path / "out")
    page = (tmp_path / "out/check.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.counts["img"] == 3
    assert "script" not in tags.counts
    assert "http" not in page
    assert "Something is wrong." in page
    markdown = (tmp_path / "out/check.md").read_text()
    assert "## Wrong: Pairs of identical images in several splits: 3" in markdown
    assert "| black.png | black or transparent |" in markdown


def test_names_are_escaped_in_the_page():
    report = check.Report("<b>", [check.Section("t|", True, ("<i>",), (("<u>|",),))], {})
    assert "<b>" not in check.page(report) and "<u>" not in check.page(report)
    assert "| \\<u>\\| |" in check.markdown(report)


def put_sound(root):
    for i in range(24):
        put(root, f"{'ab'[i % 2]}/{i}.png", picture(i))


def run(*arguments, cwd):
    command = [sys.executable, "-m", "lsanet_jax.data", "check", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_says_by_its_exit_code_whether_something_is_wrong(tmp_path):
    import lsanet_jax

    root = tmp_path / "images"
    put_sound(root)
    repository = next(iter(lsanet_jax.__path__)).rsplit("/", 1)[0]
    sound = run(root, f"--output={tmp_path / 'out'}", cwd=repository)
    assert sound.returncode == 0, sound.stderr
    assert "nothing is wrong" in sound.stdout
    assert (tmp_path / "out/check.html").is_file()
    put(root, "a/x.png", Image.new("L", (9, 9)))
    wrong = run(root, f"--output={tmp_path / 'out'}", cwd=repository)
    assert wrong.returncode == 1
    assert "! Odd images" in wrong.stdout
    inside = run(root, f"--output={root / 'out'}", cwd=repository)
    assert inside.returncode == 2
    assert "out: is inside the folder of the images, expected one outside" in inside.stderr
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


def test_a_set_that_cannot_be_listed_is_wrong(tmp_path):
    put_sound(tmp_path)
    (tmp_path / "c").mkdir()
    report = check.inspect(tmp_path)
    assert report.is_wrong
    assert "class folder 'c' is empty" in check.text(report)


def test_an_npz_file_is_checked_too(tmp_path):
    images = np.stack([np.asarray(picture(i)) for i in range(9)])
    parts = {key: images[3 * i : 3 * i + 3].copy() for i, key in enumerate(SPLITS)}
    parts["test"][1] = parts["train"][0]
    labels = {f"{key}_labels": np.array([0, 1, 0]) for key in SPLITS}
    np.savez(tmp_path / "own.npz", **{f"{key}_images": parts[key] for key in SPLITS}, **labels)
    report = check.inspect(tmp_path / "own.npz")
    rows = section(report, "Pairs of identical images in several").rows
    assert [(row[0], row[3]) for row in rows] == [("train_images[0]", "test_images[1]")]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda values: values // 64, "nearly black"),
        (lambda values: values // 64 + 126, "nearly flat (99 of 100 pixels are 126 to 129 of 255)"),
        (lambda values: np.where(values < np.percentile(values, 5), values, 255), "nearly white"),
    ],
)
def test_a_set_of_strange_greys_is_wrong(tmp_path, change, what, caplog):
    root = tmp_path / "images"
    for i in range(12):
        values = change(np.asarray(picture(i).convert("L"))).astype(np.uint8)
        put(root, f"{'ab'[i % 2]}/{i}.png", Image.fromarray(values))
    report = check.inspect(root)
    assert section(report, "Greys of the whole set").wrong
    assert what in section(report, "Greys of the whole set").note
    assert len(section(report, "Odd images").rows) == 12
    load_folder(root, size=48)
    assert what in caplog.text


def test_a_strip_is_odd(tmp_path):
    put_sound(tmp_path)
    put(tmp_path, "a/strip.png", picture(90).resize((210, 10)))
    rows = section(check.inspect(tmp_path), "Odd images").rows
    assert rows == (("a/strip.png", "21 times as long as wide"),)


def test_what_tells_the_class_is_told_of(tmp_path):
    for i in range(24):
        image = picture(i).resize((64, 64)).convert("L") if i % 2 else picture(i)
        put(tmp_path, f"{'ab'[i % 2]}/{i}.png", image)
    assert section(check.inspect(tmp_path), "Sizes or formats that").rows == (
        ("a", "PNG, colour, 8 bits"),
        ("b", "PNG, grey, 8 bits"),
        ("a", "48 x 40"),
        ("b", "64 x 64"),
    )
    put(tmp_path, "a/x.png", picture(90).resize((64, 64)).convert("L"))
    titles = [part.title for part in check.inspect(tmp_path).sections]
    assert "Sizes or formats that may tell the class" not in titles


def test_a_label_without_any_1_is_listed(tmp_path):
    for i in range(12):
        put(tmp_path, f"{i}.png", picture(i))
    rows = [f"{i}.png,{i % 2},0,{int(i % 3 == 0)}\n" for i in range(12)]
    (tmp_path / "t.csv").write_text("file,A,B,C\n" + "".join(rows))
    report = check.inspect(tmp_path, csv="t.csv", task="multi-label")
    assert ("B", 0, 0, 0, 0) in section(report, "Images").rows
    assert section(report, "Classes with fewer").rows == (("B", 0),)
    (said,) = section(report, "What was said").rows
    assert "no row has a 1 for 'B'" in said[0]


def test_ordinary_greys_are_not_strange():
    images = np.stack([np.asarray(picture(i)) for i in range(4)])
    assert quality.strange_greys(images) == ""
    assert "black" in quality.strange_greys(np.zeros_like(images))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((24, 20), Image.Resampling.BICUBIC),
        lambda image: ImageEnhance.Contrast(image).enhance(0.7),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: image.convert("L"),
    ],
)
def test_what_looks_the_same_is_alike_and_other_pictures_are_not(change):
    for seed in range(10):
        one, other = check.look_of(picture(seed)), check.look_of(picture(seed + 100))
        again = check.look_of(change(picture(seed)))
        assert check.alike(np.stack([one, other, again])) == [(0, 2)]


def test_pairs_are_found_across_blocks():
    looks = np.random.default_rng(0).normal(size=(2500, 32))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    looks[2400] = looks[3]
    looks[1100] = looks[1030]
    assert check.alike(looks) == [(3, 2400), (1030, 1100)]


def test_a_class_may_be_called_as_if_it_were_two(tmp_path):
    for i in range(6):
        put(tmp_path, f"{('COPD|Asthma', 'Normal')[i % 2]}/{i}.png", picture(i))
    rows = section(check.inspect(tmp_path), "Images").rows
    assert [(row[0], row[-1]) for row in rows] == [("COPD|Asthma", 3), ("Normal", 3)]
