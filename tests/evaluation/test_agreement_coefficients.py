"""The coefficients against worked examples that were published; docs/agreement.md shows the same figures."""

from pathlib import Path

import pytest

from evaluation.reading.coefficients import Unit, alpha, cohen, fleiss, pairs_of, raw_agreement

PAIR = ("ann", "ben")

# Fleiss 1971, table 1: 30 patients, each diagnosed by six psychiatrists. Columns: depression, personality disorder,
# schizophrenia, neurosis, other.
FLEISS_1971 = """
    00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
    00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
# The example of fourteen raters of ten things by five answers (en.wikipedia.org/wiki/Fleiss'_kappa).
FOURTEEN = (
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
)  # fmt: skip
# Krippendorff 2011, section C and D: four observers, twelve units, five values, seven missing.
KRIPPENDORFF_2011 = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
# Cohen 1968, two raters of 200 things, here without weights; Altman 1991, p. 404, two radiologists, 85 xeromammograms.
COHEN_1968 = ((88, 14, 18), (10, 40, 10), (2, 6, 12))
ALTMAN_1991 = ((21, 12, 0, 0), (4, 17, 1, 0), (3, 9, 15, 2), (0, 0, 0, 1))
# SAS/STAT user's guide, PROC FREQ, "Agreement study": two dermatologists, 88 patients.
SAS_SKIN = ((10, 4, 1, 0), (5, 10, 12, 2), (2, 4, 12, 5), (0, 2, 6, 13))
# R package irr, data set `anxiety`, second and third rater; its kappa2 has these values.
ANXIETY = (
    (3, 3, 3, 4, 5, 5, 2, 3, 5, 2, 2, 6, 1, 5, 2, 2, 1, 2, 4, 3),
    (3, 6, 4, 6, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4),
    (2, 1, 4, 4, 3, 2, 1, 6, 1, 1, 1, 2, 3, 3, 1, 1, 3, 3, 2, 2),
)


def units_of_table(table):
    """Two readers who gave the answers of a table: rows the first, columns the second; a patient each."""
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [Unit(f"p{at}", dict(zip(PAIR, map(str, cell), strict=True))) for at, cell in enumerate(cells)]


def units_of_counts(counts):
    """As many readers as there are ratings of each thing; who they were does not matter to Fleiss' kappa."""
    found = []
    for at, row in enumerate(counts):
        said = [str(answer) for answer, n in enumerate(row) for _ in range(int(n))]
        found.append(Unit(f"p{at}", {f"r{i}": text for i, text in enumerate(said)}))
    return found


def domain_of(table):
    return [str(i) for i in range(len(table))]


def test_fleiss_kappa_of_fleiss_1971():
    found = fleiss(units_of_counts(FLEISS_1971.split()), list("01234"), 0)
    assert found.value == pytest.approx(0.430, abs=5e-4)
    assert (found.n, found.detail["readers"]) == (30, 6)
    assert found.low < found.value < found.high


def test_fleiss_kappa_of_fourteen_raters():
    found = fleiss(units_of_counts(FOURTEEN), list("01234"), 0)
    assert found.value == pytest.approx(0.210, abs=5e-4)


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_krippendorff_2011_with_missing_values(level, value):
    units = [
        Unit(f"p{at}", {f"r{i}": row[at] for i, row in enumerate(KRIPPENDORFF_2011) if row[at] != "."})
        for at in range(12)
    ]
    found = alpha(units, list("12345"), 0, level)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert found.n == 11  # the last unit but its second observer's is no pair
    assert found.low < found.value <= found.high


@pytest.mark.parametrize(
    ("table", "weights", "value", "digits"),
    [
        (COHEN_1968, None, 0.492, 3),
        (ALTMAN_1991, None, 0.47, 2),
        (ALTMAN_1991, "linear", 0.57, 2),
        (SAS_SKIN, None, 0.3449, 4),
        (SAS_SKIN, "linear", 0.5082, 4),
    ],
)
def test_cohens_kappa_of_published_tables(table, weights, value, digits):
    found = cohen(units_of_table(table), PAIR, domain_of(table), 0, weights)
    assert round(found.value, digits) == value
    assert found.low < found.value < found.high


@pytest.mark.parametrize(("weights", "value"), [(None, -0.006289), ("linear", 0.145907), ("quadratic", 0.252033)])
def test_weighted_kappa_of_irr(weights, value):
    """irr takes the answers that were given for the scale, and nobody gave 5."""
    units = [Unit(f"p{at}", {"ann": str(ANXIETY[1][at]), "ben": str(ANXIETY[2][at])}) for at in range(len(ANXIETY[1]))]
    found = cohen(units, PAIR, list("12346"), 0, weights)
    assert found.value == pytest.approx(value, abs=1e-6)


def test_quadratic_kappa_by_hand():
    """(0,0) (1,1) (0,2) of three levels: mean square 4/3, by the margins 2/9 (0 + 1 + 4) + 1/9 (1 + 0 + 1) = 4/3."""
    units = units_of_table(((1, 0, 1), (0, 1, 0), (0, 0, 0)))
    assert cohen(units, PAIR, list("012"), 0, "quadratic").value == pytest.approx(1 - (4 / 3) / (4 / 3))
    assert cohen(units, PAIR, list("012"), 0, "linear").value == pytest.approx(1 - (2 / 3) / (8 / 9))


def test_raw_agreement_counts_pairs_of_readers():
    units = [Unit("p1", {"a": "x", "b": "x", "c": "y"}), Unit("p2", {"a": "x", "b": "x"}), Unit("p3", {"a": "x"})]
    found = raw_agreement(units, 0)
    assert found.value == pytest.approx((1 / 3 + 1) / 2)
    assert found.n == 2
    assert pairs_of([*units, Unit("p4", {"c": "x", "a": "x"})]) == [("a", "b"), ("a", "c")]


def test_one_answer_alone_has_no_chance_corrected_agreement():
    """Nothing but one answer: all agree, and every coefficient is undefined with a reason, not 0 and not NaN."""
    units = [Unit(f"p{i}", {"ann": "x", "ben": "x"}) for i in range(20)]
    for domain in (["x"], ["x", "y"]):
        for found in (
            cohen(units, PAIR, domain, 0),
            cohen(units, PAIR, domain, 0, "quadratic"),
            fleiss(units, domain, 0),
            alpha(units, domain, 0, "nominal"),
            alpha(units, domain, 0, "ordinal"),
        ):
            assert (found.value, found.low, found.high) == (None, None, None)
            assert found.reason.startswith("every answer is the same")
    raw = raw_agreement(units, 0)
    assert (raw.value, raw.high, raw.detail["interval"]) == (1.0, 1.0, "exact")
    assert raw.low == pytest.approx(0.025 ** (1 / 20))


def test_many_resamples_without_a_value_leave_no_interval():
    """One of ten patients differs: (9/10)^10 = 35 % of the resamples hold one answer alone."""
    units = [Unit(f"p{i}", {"ann": "x", "ben": "x"}) for i in range(9)] + [Unit("p9", {"ann": "y", "ben": "y"})]
    for found in (
        cohen(units, PAIR, ["x", "y"], 0),
        fleiss(units, ["x", "y"], 0),
        alpha(units, ["x", "y"], 0, "nominal"),
    ):
        assert (found.value, found.low) == (pytest.approx(1.0), None)
        assert float(found.reason.removeprefix("no interval: ").partition("%")[0]) == pytest.approx(35, abs=4)


def test_patients_are_resampled_not_case_steps():
    """Ten case-steps of each of two patients, one who all agree on and one who all differ on: the widest interval."""
    units = [Unit("p1", {"ann": t, "ben": t}) for t in "xy" * 5] + [
        Unit("p2", {"ann": a, "ben": b}) for a, b in ("xy", "yx") * 5
    ]
    found = raw_agreement(units, 0)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
    kappa = cohen(units, PAIR, ["x", "y"], 0)
    assert (kappa.value, kappa.low, kappa.high) == (pytest.approx(0.0), -1.0, 1.0)


def test_nothing_in_common():
    units = [Unit("p1", {"ann": "x"})]
    assert pairs_of(units) == []
    for found in (raw_agreement(units, 0), fleiss(units, ["x"], 0), alpha(units, ["x"], 0, "nominal")):
        assert (found.value, found.n, found.reason) == (None, 0, "nothing was answered by two readers")


def test_the_page_shows_these_figures():
    page = (Path(__file__).parents[2] / "docs" / "agreement.md").read_text(encoding="utf-8")
    for figure in ("0.430", "0.210", "0.743", "0.815", "0.492", "0.47", "0.57", "0.3449", "0.5082", "0.2520"):
        assert figure in page
