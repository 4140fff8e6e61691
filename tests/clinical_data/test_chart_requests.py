"""A chart answers from an index by item; what it answers is what asking every finding would give."""

from dataclasses import replace

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, sort_findings
from clinical_data.catalogue import Catalogue, CatalogueItem, Matcher
from clinical_data.chart import AnswerState, open_chart
from clinical_data.vocabulary import Entry, Vocabulary

SYSTEM = "wardstar:test"


def finding(number, code, available, **more):
    coding = Coding(SYSTEM, code, code)
    return Finding(f"f{number}", FindingKind.LABORATORY, coding, 1.0, available, available, **more)


def item(item_id, *codes):
    return CatalogueItem(item_id, item_id, "test", 1.0, matches={"test": (Matcher(SYSTEM, frozenset(codes)),)})


ITEMS = (item("panel", "sodium", "potassium"), item("sodium alone", "sodium"), item("never measured", "lipase"))
CATALOGUE = Catalogue("test", "1", ITEMS, "0" * 64)
FINDINGS = [
    finding(3, "sodium", 30),
    finding(1, "potassium", 40),
    finding(2, "sodium", 10),
    finding(4, "sodium", 90),
    finding(5, "urea", 5),
]


def chart(clock=60):
    patient = Patient("test-p", "test", "p")
    stay = (Encounter("e", "inpatient", 0),)
    case = Case("test-1", "test", "1", patient, 50, stay, {}, findings=sort_findings(FINDINGS))
    return open_chart(case, clock, CATALOGUE)


def ids(opened, wanted):
    return [f.finding_id for f in opened.request(wanted).findings]


def test_a_finding_answers_every_item_that_accepts_it_oldest_first():
    opened = chart()
    assert ids(opened, ITEMS[0]) == ["f2", "f3", "f1"]
    assert ids(opened, ITEMS[1]) == ["f2", "f3"]
    assert opened.request(ITEMS[2]).state is AnswerState.NOT_DONE_BY_NOW
    for wanted in ITEMS:
        accepted = {f.finding_id for f in opened.known() if wanted.accepts("test", f)}
        assert set(ids(opened, wanted)) == accepted


def test_asking_again_gives_the_same_answer():
    opened = chart()
    assert [opened.request(i) for i in ITEMS] == [opened.request(i) for i in ITEMS]


def test_an_item_from_outside_the_catalogue_is_answered_by_its_own_matchers():
    opened = chart()
    namesake = replace(ITEMS[0], matches={"test": (Matcher(SYSTEM, frozenset({"urea"})),)})
    assert ids(opened, ITEMS[0]) == ["f2", "f3", "f1"]
    assert ids(opened, namesake) == ["f5"]
    assert ids(opened, item("other", "urea")) == ["f5"]


def test_a_copy_at_another_clock_remembers_nothing_of_the_first():
    opened = chart()
    opened.request(ITEMS[0])
    earlier = replace(opened, _known=opened.known()[:2])
    assert ids(earlier, ITEMS[0]) == ["f2"]


def test_entries_are_found_by_code_and_offered_in_order():
    entries = (Entry("b", "bronchitis"), Entry("a", "asthma"), Entry("b", "second of its code"))
    vocabulary = Vocabulary("test", "1", SYSTEM, entries, "0" * 64)
    assert vocabulary.entry("b") == entries[0]
    assert vocabulary.entry("c") is None
    assert vocabulary.choices == (" bronchitis", " asthma", " second of its code")
