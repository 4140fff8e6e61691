"""A report on paper: A4, a title, recorded labels on the last sheets, and not one request."""

from __future__ import annotations

import importlib.util
import re
import zlib
from pathlib import Path

import pytest
import report_records as made
from test_report import CASE, Page, engine, words_of  # noqa: F401

from clinical_data.errors import UsageError
from evaluation.review import pdf
from evaluation.review.report import render, write_report

needs_weasyprint = pytest.mark.skipif(importlib.util.find_spec("weasyprint") is None, reason="no WeasyPrint here")


@pytest.fixture(scope="module")
def paper() -> dict[str, str]:
    return render(made.RUN, made.stored()[:1], made.score(), paper=True)


def test_pages_for_paper_hold_nothing_to_open_and_the_labels_come_last(paper):
    html = paper[CASE]
    assert not re.search(r"<(details|script|button|input|nav class=\"screen\")", html)
    text = words_of(Page(html))
    before, _, last = text.partition("Recorded labels, and what clinicians did afterwards")
    assert "Lobar pneumonia" not in before
    assert "Lobar pneumonia" in last
    assert "Start; visited 16 times" in before  # the tree as an outline
    blind = render(made.RUN, made.stored()[:1], None, paper=True, blind=True)[CASE]
    assert "Lobar pneumonia" not in blind
    assert "Recorded labels" not in blind


def unpacked(data: bytes) -> bytes:
    """A PDF with what its packed streams hold."""
    assert data.startswith(b"%PDF-")
    packed = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    return data + b"".join(zlib.decompressobj().decompress(p) for p in packed if p[:1] == b"x")


@needs_weasyprint
def test_pdf_is_a4_with_a_title_and_fetches_nothing(engine, tmp_path: Path, monkeypatch):  # noqa: F811
    asked: list[str] = []
    monkeypatch.setattr(pdf.Refuser, "__call__", lambda _, url, **__: asked.append(url))
    write_report(engine, "demo", tmp_path, with_pdf=True)
    assert asked == []
    for name in (CASE, "index.html"):
        data = unpacked((tmp_path / name).with_suffix(".pdf").read_bytes())
        boxes = {tuple(map(round, map(float, b.split()))) for b in re.findall(rb"/MediaBox \[([^]]+)\]", data)}
        assert boxes == {(0, 0, 595, 842)}
        assert b"/Title" in data
        assert b"/Lang" in data
        assert str(tmp_path).encode() not in data
        assert pdf.is_ours((tmp_path / name).with_suffix(".pdf"))


@needs_weasyprint
def test_a_page_that_asks_for_a_file_gets_nothing(tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("s")
    with pytest.raises(ValueError, match="fetches nothing"):
        pdf.Refuser()(secret.as_uri())
    bad = f'<html><title>t</title><link rel="stylesheet" href="{secret.as_uri()}"><img src="{secret.as_uri()}">x</html>'
    assert pdf.write_pdf(bad, tmp_path / "x.pdf") == 1


def test_without_the_library_the_hint_names_the_extra(monkeypatch, tmp_path: Path, engine):  # noqa: F811
    monkeypatch.setattr(pdf, "find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        write_report(engine, "demo", tmp_path / "out", with_pdf=True)
    assert "wardstar[pdf]" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_report_without_pdf_removes_those_of_an_earlier_one(engine, tmp_path: Path):  # noqa: F811
    (tmp_path / "cases").mkdir()
    mine = tmp_path / "cases" / "mine.pdf"
    mine.write_bytes(b"%PDF- my own")
    stale = [(tmp_path / name).with_suffix(".pdf") for name in (CASE, "index.html")]
    for path in stale:
        path.write_bytes(b"%PDF-1.7 of an open report " + pdf.MARK)
    write_report(engine, "demo", tmp_path, blind=True)
    assert not [p for p in stale if p.exists()]
    assert mine.exists()
