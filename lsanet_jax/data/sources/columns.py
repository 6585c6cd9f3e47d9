"""What the columns of a table of images mean, by the names that people and published sets use.

Names are compared without case, blanks and punctuation. What is not certain is an error that names
the config field which settles it; a column that looks like one of these is never ignored silently.
"""

import collections
import dataclasses
import itertools
import logging
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from lsanet_jax.data import groups as groups_lib
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Row = Mapping[str, str]

NONE = "none"  # As config.data.split_column or group_column: there is no such column.
MISSING = {"", "nan", "na", "n/a", "none", "null", "<na>", "nat", "?", "-"}
MISSING |= {"#n/a", "#na", "#null!", "#ref!", "#value!", "#div/0!", "#name?", "#num!"}
MISSING |= {"nil", ".", "--"}
UNCERTAIN = {"-1", "-1.0"}
UNKNOWN_WORDS = {"unknown", "unk", "notknown", "unsure", "uncertain", "unclear", "notavailable"}
UNKNOWN_WORDS |= {"missing", "undefined", "undetermined", "notspecified", "unlabelled", "unlabeled"}
UNKNOWN_WORDS |= {"na", "nan", "null", "notapplicable", "nolabel", "indeterminate", "unreadable"}
UNKNOWN_WORDS |= {"ungradable", "ungradeable", "notgradable", "notgraded", "notreadable"}
UNKNOWN_WORDS |= {"unspecified", "unclassified", "inconclusive", "nodiagnosis", "pending", "tbd"}
UNKNOWN_WORDS |= {"exclude", "excluded", "reject", "rejected", "poorquality", "blank", "empty"}
UNKNOWN_WORDS |= {"nd", "unbekannt", "inconnu", "desconocido", "sconosciuto"}
UNKNOWN_NUMBERS = {-1, -2, -9, -99, -999, -9999, 99, 999, 9999}
_NOBODY = {"anonymous", "anon", "anonymized", "anonymised", "deidentified", "none", "noname"}
_ZERO_OR_ONE = re.compile(r"([01])(?:\.0*)?(?:e[+-]?0+)?|(false)|(true)", re.IGNORECASE)
NO_FINDING = {"nofinding", "nofindings"}

_FILES = (
    *("file", "filename", "filepath", "path", "image", "imagefile", "imagefilename", "imagename"),
    *(
        "imagepath",
        "imageid",
        "imageindex",
        "imgid",
        "img",
        "imgname",
        "imgpath",
        "isicid",
        "images",
    ),
    *(
        "idcode",
        "picture",
        "photo",
        "dicomid",
        "dicom",
        "sopinstanceuid",
        "scan",
        "name",
        "uid",
        "id",
    ),
)
_NOT_IMAGES = re.compile("mask|segm|annot|overlay|heatmap", re.IGNORECASE)
_LABELS = (
    *("label", "labels", "class", "classes", "classname", "classlabel", "labelname", "category"),
    *("diagnosis", "dx", "target", "findinglabels", "finding", "findings", "level", "grade"),
    *("disease", "pathology", "groundtruth", "benignmalignant", "retinopathygrade"),
)
_MAYBE_LABELS = (  # If there is none of the others; columns of 0 and 1 may be one-hot with these.
    *("diagnostic", "diagnostics", "diagnose", "diagnostico", "diagnosi", "cancer", "malignancy"),
    *("birads", "pirads", "tirads", "gleason", "stage", "severity"),
)
_WORDS_OF_LABELS = {*_LABELS, *_MAYBE_LABELS}
_SPLIT_NAMES = (
    *("split", "splits", "set", "subset", "partition", "datasplit", "datasetsplit", "phase"),
    *("usage", "traintest", "traintestsplit", "trainvaltest", "setname", "splitname", "dataset"),
)
_FOLD = re.compile(  # The name of a column, not only its letters: no 'scaffold'.
    "(?:(?:.*[^a-z])?(?:k|cv|test|val|outer|inner|split)?folds?|cv|cross[^a-z]?val(?:idation)?)"
    "[^a-z]*(?:id|no|nr|number|num|index|idx)?[^a-z]*"
)
_GROUPS = (  # The coarsest first: a patient has studies, and a study has lesions.
    *("patient", "patienten", "pat", "subject", "subj", "person", "participant", "individual"),
    *("paciente", "paziente", "pazient", "pasient", "pacjent", "pacjenta", "potilas", "hasta"),
    *("пациент", "пациента", "患者", "病人", "住院", "病历", "病歴", "환자", "donor", "animal"),
    *("mouse", "rat", "pid", "mrn", "ptid", "empi", "eid", "proband", "uhid", "nhs", "ipp"),
    *("cpr", "case"),
    *("encounter", "accession", "study", "exam", "examination", "visit", "specimen", "wsi"),
    *("slide", "video", "lesion"),
)
# Alone, these are a side, a measurement or a word.
_GROUPS_BY_ID = ("eye", "biopsy", "series", "volume", "fall", "chart", "dossier", "pt", "hn")
_SUFFIX = (
    "(?:id|ids|no|nr|nummer|number|num|name|code|key|index|uid|instanceuid|identifier|hash|hashed"
    "|anon|anonymized|anonymised|numero|tunnus|番号|编号|編號|号|號|번호)"
)
_GROUP = re.compile(
    "(?:id|anon|anonymized|anonymised|pseudo|unique|original|deidentified|hashed|codice|codigo"
    "|numero|nr|num)*"
    f"(?:({'|'.join(_GROUPS)})(?:s|{_SUFFIX})*|({'|'.join(_GROUPS_BY_ID)}){_SUFFIX}+)"
)
_LIKE_GROUP = re.compile(".+(patient|subject)()(?:id|no|nr|number|num|code|key|uid)")
_ID = {"id", "ids", "uid", "no", "nr", "num", "number", "key"}
_NOT_LABELS = {
    *(
        "age",
        "sex",
        "gender",
        "male",
        "female",
        "race",
        "ethnicity",
        "view",
        "viewposition",
        "side",
    ),
    *("frontallateral", "appa", "modality", "localization", "location", "region", "country"),
    *("hospital", "center", "centre", "scanner", "manufacturer", "device", "dataset", "comment"),
    *(
        "laterality",
        "eye",
        "height",
        "width",
        "followup",
        "draw",
        "index",
        "dxtype",
        "site",
        "date",
    ),
    *("ageapprox", "approxage", "fitzpatrick", "fitzpatrickskintype", "skintype", "camera"),
    *("anatomsite", "anatomsitegeneral", "bodypart", "bodypartexamined", "reader", "annotator"),
    *("radid", "radiologist", "year", "url", "license", "licence", "kvp", "institution", "notes"),
    *("note", "comments", "remarks", "weight", "bmi", "eyeside", "leftright", "acquisitiondate"),
    *("md5", "sha256", "widthpx", "heightpx", "magnification", "mag"),
}
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("tune", "tuning"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("eval", "evaluation", "external"), "test"),
}
_GUESSED_SPLITS = {"tune", "tuning", "eval", "evaluation", "external"}
_AROUND = (
    "(?:(?:isic|task)[0-9]*|images?|imgs?|pictures?|data|set|input|cohort|group|samples?|cases?"
    "|patients?|mass|calc)*"
)
_SPLIT = f"[0-9]*{_AROUND}({'|'.join(_SPLIT_WORDS)}){_AROUND}(?:(?:19|20)[0-9]{{2}})?"
_LIKE_SPLITS = re.compile(
    "(train|tr\\Z|entren|entrain|addestr|aprend|обуч|训练|訓練|학습)"
    "|(valid|va\\Z|валид|验证|驗證|検証|검증)|(test|te\\Z|prueba|essai|prova|тест|测试|測試|テスト|시험)"
    "|(develop)|(deriv)|(discover)|(replicat)|(hold.?out)|(extern)|(intern)|(\\Afit)|(eval)"
)
_SPLIT_FLAG = f"(?:is|in|for)?{_SPLIT}(?:flag)?"
_NO = {"", "0", "0.0", "no", "n", "false", "f", "-"}
_NO |= {
    "nein",
    "non",
    "nej",
    "nee",
    "nie",
    "ne",
    "não",
    "nao",
    "нет",
    "否",
    "不是",
    "いいえ",
    "아니오",
}
_NO |= {"falsch", "faux", "falso", "unused", "out", "off"}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The columns of a table that count.

    Attributes:
        file: holds the images' names.
        labels: one column of classes, or several of 0 and 1.
        split: of the splits, or ''.
        groups: of patients or the like, whose images stay together, the coarsest first.
        no_split: whether the user says that splits are not given.
        fold: numbers the parts of a cross-validation, or ''.
    """

    file: str
    labels: tuple[str, ...]
    split: str
    groups: tuple[str, ...]
    no_split: bool = False
    fold: str = ""


def key(name: str) -> str:
    """Return a name without case, blanks and punctuation: 'Patient ID' equals 'patient_id'."""
    return "".join(character for character in name.casefold() if character.isalnum())


def _plain(name: str) -> str:
    """Return the key of a name without accents: 'patiëntnummer' as 'patientnummer'."""
    letters = unicodedata.normalize("NFD", key(unicodedata.normalize("NFC", name)))
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", letters))


def split_of(value: str) -> str | None:
    """Return 'train', 'val' or 'test' for a word such as 'Training' or 'dev'; None for others."""
    return _SPLIT_WORDS.get(_split_word(value))


def refuse_partly(where: object, what: str, values: Iterable[str]) -> None:
    """Raises DataError if only some values are words for splits, 'train' or 'test' among them."""
    words = {value: _split_word(value) for value in sorted(values)}
    others = [value for value, word in words.items() if not word]
    if others and not {"train", "training", "test", "testing"}.isdisjoint(words.values()):
        known = [value for value, word in words.items() if word]
        raise DataError(
            f"{where} {what} {_listed(known)} look(s) like splits, but {_listed(others)} do(es)"
            " not, expected words for train, val and test only: rename the latter, or, if the"
            " splits are not to be used, set config.data.split_column to 'none'."
        )


def refuse_two_words(where: object, what: str, values: Iterable[str]) -> None:
    """Raises DataError if words as 'val' and 'dev' mean one split; guessed ones are logged."""
    for split in SPLITS:
        same = [value for value in sorted(values) if split_of(value) == split]
        if len({_split_word(value)[0] for value in same}) > 1:
            raise DataError(
                f"{where} {what} {_listed(same)} may all be the split {split}, expected one word"
                " for it: rename the others, or, if the splits are not to be used, set"
                " config.data.split_column to 'none'."
            )
        if guessed := [value for value in same if _split_word(value) in _GUESSED_SPLITS]:
            log.warning("%s %s %s: read as the split %s.", where, what, _listed(guessed), split)


def _split_word(value: str) -> str:
    found = re.fullmatch(_SPLIT, key(value))
    return found[1] if found else ""


def part(fold: str) -> str:
    """Return the name of a fold, without a spreadsheet's '.0'."""
    return fold.strip().removesuffix(".0")


def is_nobody(value: str) -> bool:
    """Whether a patient's name or number says that it is not known, as 'ANONYMOUS' does."""
    return key(value) in _NOBODY | UNKNOWN_WORDS


def choose(
    where: object,
    header: Sequence[str],
    rows: Sequence[Row],
    find: Callable[[str], Sequence[str]],
    *,
    task: str | None = None,
    folds: int = 0,
    file_column: str = "",
    label_column: str = "",
    split_column: str = "",
    group_column: str = "",
) -> Chosen:
    """Choose the columns that count, by the names given, else by those known, else by content.

    Args:
        where: the table and its first line, for errors.
        header: names of the columns.
        rows: the cells.
        find: lists the images that a cell leads to.
        task: 'multi-label' wants columns of 0 and 1, even one.
        folds: config.data.folds; if it is not 0, a column may number the folds.
        file_column: config.data.file_column.
        label_column: config.data.label_column; several names, with commas, for columns of 0 and 1.
        split_column: config.data.split_column; 'none' for no such column.
        group_column: config.data.group_column; 'none' for no such column.

    Raises:
        ConfigError: a column that was given does not exist.
        DataError: a column that is needed is not there, or there are several.
    """
    given = [file_column, split_column, group_column]
    labels = () if label_column in ("", *header) else tuple(label_column.split(","))
    labels = tuple(name.strip() for name in labels) or (label_column,) * bool(label_column)
    for field, names in zip(
        ("file_column", "split_column", "group_column", "label_column"),
        (*((name,) for name in given), labels),
        strict=True,
    ):
        for name in names:
            if name and name not in header and not (name == NONE and field[0] in "sg"):
                raise ConfigError(
                    f"config.data.{field} is {name!r}, expected one of the columns of {where}"
                    f" {_listed(header)}."
                )
    file = file_column or _file_column(where, header, rows, find)
    others = [name for name in header if name not in (file, *labels)]
    fold = "" if split_column == NONE or not folds else _fold_column(where, others, rows, folds)
    others = [name for name in others if name != fold]
    split = "" if split_column == NONE else split_column or _split_column(where, others, rows)
    if split:
        refuse_two_words(where, f"column {split!r}:", _values(split, rows))
    groups = (group_column,) if group_column else _group_columns(where, others, rows)
    groups = () if group_column == NONE else groups
    rest = [name for name in others if name not in (split, *groups)]
    rest = [name for name in rest if _group_rank(name, rows) is None]
    roles = {**dict.fromkeys(groups, "groups"), split: "splits", fold: "folds", file: "files"}
    shown = ", ".join(repr(n) + f" ({roles.get(n)})" * (n in roles) for n in header[:20])
    labels = labels or _label_columns(where, shown, rest, rows, task)
    rest = [name for name in rest if name not in labels]
    if group_column != NONE:
        _tell_of_ids(where, rest, rows, groups, labels)
    if not split and split_column != NONE:
        _tell_of_like_splits(where, rest, rows)
    return Chosen(file, labels, split, groups, split_column == NONE, fold)


def _file_column(
    where: object,
    header: Sequence[str],
    rows: Sequence[Row],
    find: Callable[[str], Sequence[str]],
) -> str:
    """Find the column of files: of those known by name, the first whose cells lead to images."""
    known = sorted((n for n in header if key(n) in _FILES), key=lambda n: _FILES.index(key(n)))
    first_rows = [row for row in rows[:200] if any(row.values())]
    for name in known:
        if any(find(row[name]) for row in first_rows):
            _refuse_rivals(where, name, header, first_rows, find)
            log.info("%s column %r holds the files.", where, name)
            return name
    if known and key(known[0]) not in ("name", "uid", "id"):
        return known[0]  # The first row that leads nowhere is an error, which says so.
    by_content = [
        name for name in header if first_rows and all(find(row[name]) for row in first_rows)
    ]
    if len(by_content) == 1:
        log.info("%s column %r holds the files.", where, by_content[0])
        return by_content[0]
    raise DataError(
        f"{where} found no column of files among {_listed(header)}, expected one such as 'file',"
        " 'image' or 'image_id': rename it, or name it in config.data.file_column."
    )


def _refuse_rivals(
    where: object,
    chosen: str,
    header: Sequence[str],
    rows: Sequence[Row],
    find: Callable[[str], Sequence[str]],
) -> None:
    """Refuse a column that may number the rows, if another one leads to other images."""
    is_number = lambda name: all(row[name].strip().isdecimal() for row in rows)
    found = [tuple(find(row[chosen])) for row in rows]
    if all(found) and not is_number(chosen):
        return
    for name in header:
        if _NOT_IMAGES.search(name) or is_number(name):
            continue
        others = [tuple(find(row[name])) for row in rows]
        differing = [rows[i] for i in range(len(rows)) if found[i] != others[i]]
        if all(others) and len(set(others)) == len(rows) and differing:
            raise DataError(
                f"{where} columns {chosen!r} and {name!r} lead to different images, such as"
                f" {differing[0][chosen]!r} and {differing[0][name]!r} in one row, expected one"
                " column of files: name it in config.data.file_column."
            )


def _split_column(where: object, names: Sequence[str], rows: Sequence[Row]) -> str:
    """Find the column of splits, by its name or by its cells."""
    exact = [name for name in names if name == "split"]
    folds = [name for name in names if _is_fold(name, rows)]
    by_name = [name for name in names if _is_split_name(name) and name not in folds]
    found = exact or [name for name in by_name if _split_words(name, rows)]
    found = found or [name for name in names if _split_words(name, rows) == {*SPLITS}]
    found = found or [name for name in folds if _split_words(name, rows)]
    found = found or [name for name in names if _only_splits(where, name, rows)]
    flags = [name for name in names if _is_flag(name, rows)]
    if flags and not found:
        raise DataError(
            f"{where} column {flags[0]!r} looks like one of splits, but holds"
            f" {_listed(_values(flags[0], rows))}, expected one column of train, val and test:"
            " replace the values, or, if the column is not to be used, set"
            " config.data.split_column to 'none'."
        )
    if len(found) > 1:
        raise DataError(
            f"{where} found several columns of splits, {_listed(found)}: name the right one in"
            " config.data.split_column, or 'none'."
        )
    for name in [] if found else (*by_name, *folds):
        values = [value for value in _values(name, rows) if value]
        if len(values) > 1 and (name in folds or all(value.isdecimal() for value in values)):
            parts = {part(value) for value in values} - UNCERTAIN
            raise DataError(
                f"{where} column {name!r} looks like one of splits, but holds {_listed(values)},"
                " expected train, val and test: replace the values, or, if the column is not to be"
                " used, set config.data.split_column to 'none'."
                + (
                    f" For a cross-validation by it, set config.data.folds to {len(parts)}, and"
                    " config.data.fold to the part to test."
                    if name in folds
                    else ""
                )
            )
        if len(values) > 1:
            log.warning("%s column %r (%s) is not used.", where, name, _listed(values))
    if found and found != exact:
        log.info("%s column %r holds the splits.", where, found[0])
    return found[0] if found else ""


def _fold_column(where: object, names: Sequence[str], rows: Sequence[Row], folds: int) -> str:
    """Find a column that numbers the folds; a given assignment is never drawn anew."""
    found = [name for name in names if _is_fold(name, rows) and not _split_words(name, rows)]
    if not found:
        return ""
    values = {part(row[found[0]]) for row in rows} - {""} - UNCERTAIN
    if len(found) > 1 or len(values) != folds:
        what = f"columns {_listed(found)}" if len(found) > 1 else f"{len(values)} values in it"
        raise DataError(
            f"{where} column {found[0]!r} numbers folds, but there are {what}, expected one column"
            f" of {folds} values, as config.data.folds says: set that to {len(values)}, or, if the"
            " column is not to be used, config.data.split_column to 'none'."
        )
    log.info("%s column %r says which image is in which fold.", where, found[0])
    return found[0]


def _values(name: str, rows: Sequence[Row]) -> list[str]:
    return sorted({row[name].strip() for row in rows})


def _is_split_name(name: str) -> bool:
    return key(name) in _SPLIT_NAMES or key(name).endswith(("split", "partition"))


def _is_fold(name: str, rows: Sequence[Row]) -> bool:
    """Whether a column's name says that it numbers folds, and its cells are no measurements."""
    is_fraction = lambda cell: bool(re.fullmatch("-?[0-9]*[.,][0-9]*[1-9][0-9]*", cell))
    named = _FOLD.fullmatch(name.casefold())
    return bool(named) and not any(is_fraction(value) for value in _values(name, rows))


def _is_flag(name: str, rows: Sequence[Row]) -> bool:
    """Whether a column says of each image whether it is in one split."""
    if not re.fullmatch(_SPLIT_FLAG, key(name)):
        return False
    values = {value.casefold() for value in _values(name, rows)}
    is_counted = values in ({"1", "2"}, {"1.0", "2.0"})
    return is_binary(name, rows) or is_counted or (len(values) == 2 and not values.isdisjoint(_NO))


def _split_words(name: str, rows: Sequence[Row]) -> set[str]:
    return {split for row in rows if (split := split_of(row[name]))}


def _only_splits(where: object, name: str, rows: Sequence[Row]) -> bool:
    """Whether all cells are words for splits, 'train' and another one among them."""
    values = _values(name, rows)
    if key(name) not in _LABELS and len(values) <= 2 * len(SPLITS):
        refuse_partly(where, f"column {name!r}:", values)
    found = {*map(split_of, values)}
    return "train" in found and len(found) > 1 and None not in found


def _tell_of_like_splits(where: object, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Log columns whose cells tell of splits, but in words that leave open which is which."""
    for name in names:
        values = _values(name, rows)
        if look_like_splits(values):
            log.warning(
                "%s column %r (%s) looks like one of splits, and is not used: write train, val and"
                " test, or, if it says something else, set config.data.split_column to 'none'.",
                *(where, name, _listed(values)),
            )


def look_like_splits(values: Collection[str]) -> bool:
    """Whether a few words tell of splits, but perhaps leave open which is which."""
    matches = filter(None, map(_LIKE_SPLITS.search, map(_plain, values)))
    return len(values) <= 2 * len(SPLITS) and len({match.lastindex for match in matches}) > 1


def is_part_of_patient(name: str) -> bool:
    """Whether a column is of what a patient may have several of: studies, slides, lesions."""
    match = _GROUP.fullmatch(_plain(name))
    return bool(match) and (match[1] is None or _GROUPS.index(match[1]) > _GROUPS.index("case"))


def _group_rank(name: str, rows: Sequence[Row]) -> int | None:
    """Return a small number for coarse groups; None for a column that is not one of groups."""
    match = _GROUP.fullmatch(_plain(name)) or _LIKE_GROUP.fullmatch(_plain(name))
    if not match or ("id" not in key(name) and len(rows) > 4 and is_binary(name, rows, 0.9)):
        return None  # A column 'case' or 'lesion' of 0 and 1 is a label.
    return (_GROUPS + _GROUPS_BY_ID).index(match[1] or match[2])


def _group_columns(where: object, names: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """Find the column of the coarsest groups, and others that tie these together.

    A column that is the same in all rows says nothing, and one that would leave few groups, as the
    number of a visit does, is not of what stays together.
    """
    known = [name for name in names if _group_rank(name, rows) is not None]
    known.sort(key=lambda name: _group_rank(name, rows) or 0)
    found: tuple[str, ...] = ()
    for name in known:
        count = len(_values(name, rows))
        if count < 2 <= len(rows):
            log.warning("%s column %r is the same in all rows, and is not used.", where, name)
        elif not found:
            log.info("%s images with the same %r stay in one split.", where, name)
            found = (name,)
        elif (tied := _count(rows, (*found, name))) < (before := _count(rows, found)):
            if _is_id(name) and 2 * tied > min(before, count) and 8 * tied > len(rows):
                log.warning("%s images with the same %r stay in one split too.", where, name)
                found += (name,)
            else:
                _tell_of_group(where, name)
    for name in (name for name in names if name not in known and not found):
        if not _is_no_label(name) and any(
            stem in key(name) for stem in ("patient", "subject", "lesionid")
        ):
            _tell_of_group(where, name)
    return found


def _tell_of_ids(
    where: object,
    names: Sequence[str],
    rows: Sequence[Row],
    groups: tuple[str, ...],
    labels: tuple[str, ...],
) -> None:
    """Log identifiers, by name or cells, that most rows share with others.

    Those that groups hold together are left out.
    """
    classes = len(_values(labels[0], rows)) if len(labels) == 1 else len(labels)
    for name in names:
        counts = collections.Counter(row[name].strip() for row in rows if not _is_blank(row[name]))
        repeated = sum(count for count in counts.values() if count > 1)
        if len(counts) <= classes or 2 * repeated <= len(rows):
            continue
        if groups:
            is_loose = _is_id(name) and _count(rows, (*groups, name)) < _count(rows, groups)
        else:
            is_loose = _is_id(name) or _numbers_things(name, rows, counts, labels)
        if is_loose:
            _tell_of_group(where, name)


def _numbers_things(
    name: str, rows: Sequence[Row], counts: Mapping[str, int], labels: tuple[str, ...]
) -> bool:
    """Whether cells look like identifiers: few rows each, mostly of one label, no measurements."""
    if _is_no_label(name) or any(re.fullmatch("-?[0-9]*[.,][0-9]+", cell) for cell in counts):
        return False
    found = {(row[name].strip(), *(row[label] for label in labels)) for row in rows}
    return 20 * len(counts) > len(rows) and 2 * len(found) < 3 * len(counts)


def _tell_of_group(where: object, name: str) -> None:
    log.warning(
        "%s column %r is not used; if its images must stay in one split, name it in"
        " config.data.group_column.",
        where,
        name,
    )


def groups_of(rows: Sequence[Row], names: tuple[str, ...]) -> list[str]:
    """Name the group of each row; several columns make one group of all rows that they tie."""
    if len(names) < 2:
        return [row[name] for row in rows for name in names] or [""] * len(rows)
    filled = lambda row: next((row[n] for n in names if not _is_blank(row[n])), row[names[0]])
    return [filled(rows[first]) for first in _tied(rows, names)]


def _tied(rows: Sequence[Row], names: tuple[str, ...]) -> list[int]:
    """Return for each row the first one that cells of the columns tie it to."""
    places = collections.defaultdict(list)
    for place, row in enumerate(rows):
        for name in names:
            if not _is_blank(row[name]):
                places[name, row[name].strip()].append(place)
    return groups_lib.join(len(rows), places.values())


def _count(rows: Sequence[Row], names: tuple[str, ...]) -> int:
    return len({*_tied(rows, names)})


def _is_blank(cell: str) -> bool:
    return cell.strip().lower() in MISSING or is_nobody(cell)


def _is_id(name: str) -> bool:
    """Whether a column's name says that it numbers something: 'slide_id', 'SeriesInstanceUID'."""
    last = _words(name)[-1]
    return last in _ID or last.endswith("uid")


def _words(name: str) -> list[str]:
    parts = re.split("[^A-Za-z]+|(?<=[a-z])(?=[A-Z])", name.strip())
    return [part.casefold() for part in parts]


def _is_no_label(name: str) -> bool:
    """Whether a column is called as what is known of a patient or an image: 'Patient Age'."""
    return bool({key(name), re.sub("patient|subject", "", key(name))} & _NOT_LABELS)


def _label_columns(
    where: object, shown: str, names: Sequence[str], rows: Sequence[Row], task: str | None
) -> tuple[str, ...]:
    """Find the column of classes, else the columns of 0 and 1."""
    free = [name for name in names if key(name) and not _is_no_label(name)]
    free = [
        name for name in free if not _is_fold(name, rows) and not key(name).startswith("unnamed")
    ]
    if "label" in free and task != "multi-label":
        _tell_of_others(where, "label", free, rows)
        return ("label",)
    binary = [name for name in free if is_binary(name, rows)]
    known = [name for name in free if key(name) in _LABELS]
    one_hot = _one_hot(binary, rows)
    if not known and task != "multi-label":
        known = [name for name in free if key(name) in _MAYBE_LABELS and name not in one_hot]
    if len(known) > 1 and task != "multi-label":
        raise DataError(
            f"{where} found several columns of labels, {_listed(known)}: name the right one in"
            " config.data.label_column."
        )
    if known and task != "multi-label":
        log.info("%s column %r holds the labels.", where, known[0])
        _tell_of_others(where, known[0], free, rows)
        return (known[0],)
    if known and len(known) == 1 and not is_binary(known[0], rows):
        return (known[0],)  # Joined labels.
    if len(binary) > 1 or (binary and task == "multi-label"):
        if task != "multi-label" and binary != one_hot:
            _refuse_doubtful(where, binary, one_hot, free, rows)
        ignored = [name for name in names if name not in binary and name.strip()]
        if ignored:
            log.warning("%s columns that are not labels of 0 and 1: %s.", where, _listed(ignored))
        log.log(
            logging.INFO if task == "multi-label" and not ignored else logging.WARNING,
            "%s the columns of 0 and 1 are read as labels: %s. To take others, name them in"
            " config.data.label_column.",
            *(where, _listed(binary)),
        )
        return tuple(binary)
    if len(free) == 1:
        log.warning(
            "%s column %r is read as the labels, since no other is left: if it says something else"
            " of the images, name the right one in config.data.label_column.",
            *(where, free[0]),
        )
        return (free[0],)
    raise DataError(
        f"{where} found no column of labels among {shown}, expected 'label', or for multi-label two"
        " or more named columns of 0 and 1: rename one, or name it in config.data.label_column."
    )


def _refuse_doubtful(
    where: object,
    binary: Sequence[str],
    one_hot: Sequence[str],
    names: Sequence[str],
    rows: Sequence[Row],
) -> None:
    """Tell of a column of words beside those of 0 and 1; refuse these if nearly one-hot."""
    advice = (
        "name the column(s) of labels in config.data.label_column. If all columns of 0 and 1 are"
        " labels, set config.data.task to 'multi-label'."
    )
    for name in names:
        values = [value for value in _values(name, rows) if value.lower() not in MISSING]
        is_text = not any(re.fullmatch("[-+0-9.,:/ ]*", value) for value in values)
        if name not in binary and len(values) > 1 and not _WORDS_OF_LABELS.isdisjoint(_words(name)):
            raise DataError(
                f"{where} column {name!r} ({_listed(values[:3])}, ...) may be the label, or those"
                f" of 0 and 1 are ({_listed(binary)}): {advice}"
            )
        if name not in binary and not _is_id(name) and is_text and 2 <= len(values) <= 50:
            log.warning(
                "%s the columns of 0 and 1 are read as labels, but column %r (%s, ...) may be the"
                " label: then %s",
                *(where, name, _listed(values[:3]), advice),
            )
    if one_hot:
        others = [name for name in binary if name not in one_hot]
        raise DataError(
            f"{where} the columns {_listed(one_hot)} are one-hot (exactly one 1 in each row), but"
            f" with {_listed(others)} they are not: {advice}"
        )


def _one_hot(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """List the columns, all but two at most, that have exactly one 1 in each row; [] for none."""
    ones = [{name for name in names if zero_or_one(row[name]) == 1} for row in rows]
    for count in range(min(3, len(names) - 1)):
        for others in itertools.combinations(names, count):
            if all(len(found.difference(others)) == 1 for found in ones):
                return [name for name in names if name not in others]
    return []


def _tell_of_others(where: object, chosen: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Log which other columns may be of labels too."""
    others = [name for name in names if key(name) in _LABELS or is_binary(name, rows)]
    others = [name for name in others if name != chosen]
    if others:
        log.warning(
            "%s column %r holds the labels; these look like labels too, and are not used: %s. To"
            " take others, name them in config.data.label_column.",
            *(where, chosen, _listed(others)),
        )


def is_binary(name: str, rows: Sequence[Row], least: float = 0.5) -> bool:
    """Whether at least a share of the cells that are filled are 0 or 1: the others are mistakes.

    Of a column without any 0, as one that counts from 1, it is at least nine of ten.
    """
    cells = [row[name].strip().lower() for row in rows]
    filled = [cell for cell in cells if cell not in MISSING]
    values = [zero_or_one(cell) for cell in filled]
    sound = sum(v is not None or cell in UNCERTAIN for v, cell in zip(values, filled, strict=True))
    return bool(filled) and sound >= (least if 0 in values else max(least, 0.9)) * len(filled)


def zero_or_one(cell: str) -> int | None:
    """Read 0, 1, 0.0, 1.000e+00, True and the like; None for anything else."""
    found = _ZERO_OR_ONE.fullmatch(cell.strip())
    return int(found[1] or bool(found[3])) if found else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:20]))
    return shown + (", ..." if len(names) > 20 else "")
