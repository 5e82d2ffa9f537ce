"""The release document as people get it: what stands at the top, that nothing is fetched, that all of it is there, in HTML and PDF."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pypdf import PdfReader

from services.reports import seal
from services.reports.service import written
from tests.reports.made import report
from waybill.v1 import common_pb2, report_pb2

HTML, PDF = report_pb2.REPORT_FORMAT_HTML, report_pb2.REPORT_FORMAT_PDF
KEY = seal.private_key(seal.new_key())
SECTIONS = [
    "Journey",
    "Temperature over time",
    "Exposure by limit",
    "Excursions",
    "Decisions, holds and alerts",
    "Custody",
    "Rules in force",
    "Where it comes from",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Texts, headings and links of a page; every element that is opened must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.outside: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [
            f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "action", "data") or name.startswith("on")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for kind, text in self.texts if kind == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return written(report(), HTML, KEY).decode()


def test_verdict_reason_and_doubt_stand_first(html: str) -> None:
    page = Page(html)
    heads = [text.replace("\u00a0", " ") for kind, text in page.texts if kind == "p"]
    texts = " ".join(text.replace("\u00a0", " ") for _, text in page.texts[:30])
    assert page.of("h2")[:3] == ["Verdict", "Why", "What is uncertain"]
    assert {"Excursion", "Above 8 °C for 3 h, up to 12.4 °C", "2 h uncovered"} <= set(heads)
    assert "1 excursion, critical" in texts
    assert page.of("h1") == ["Shipment S-1"]


def test_all_sections_are_there_with_decisions_revisions_versions_and_digest(html: str) -> None:
    page = Page(html)
    assert page.of("h2")[3:] == SECTIONS
    text = " ".join(text for _, text in page.texts).replace("\u00a0", " ")
    for said in (
        "maria",
        "stability data cover it, QA-77",
        "late readings",
        "1 earlier revision",
        "cold version 3",
        "7.25 °C",
        "MKT",
        "Lisbon",
    ):
        assert said in text
    assert report().data_sha256.hex() in text


def test_nothing_is_fetched_and_nothing_runs(html: str) -> None:
    page = Page(html)
    assert page.outside == []
    assert "script" not in {kind for kind, _ in page.texts}
    assert "&lt;script&gt;" in html
    assert not re.search(r"url\(|@import|https?://", html.split("<!-- WAYBILL")[0])
    assert "default-src 'none'" in html


@pytest.mark.parametrize(
    ("verdict", "head"), [(common_pb2.VERDICT_WITHIN_LIMITS, "Within limits"), (common_pb2.VERDICT_NO_DATA, "No data")]
)
def test_the_other_verdicts(verdict: common_pb2.Verdict.ValueType, head: str) -> None:
    page = Page(written(report(verdict=verdict), HTML, None).decode())
    texts = [text for _, text in page.texts]
    assert head in texts
    assert any("not signed" in text for text in texts)


def test_an_empty_report_is_still_a_document() -> None:
    bare = report_pb2.ShipmentReport()
    bare.shipment.shipment_id = "S-0"
    for form in (HTML, PDF):
        assert seal.opened(written(bare, form, KEY)).intact


def test_the_pdf_says_the_same_and_carries_the_seal() -> None:
    data = written(report(), PDF, KEY)
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(data)).pages]
    text = " ".join(pages).replace("\u00a0", " ")
    assert "Excursion" in pages[0]
    assert "2 h uncovered" in pages[0].replace("\u00a0", " ")
    for said in (*SECTIONS, "maria", "QA-77", "omar", report().data_sha256.hex()):
        assert said in text
    found = seal.opened(data)
    assert found.intact
    assert found.genuine
    assert report_pb2.ShipmentReport.FromString(found.report) == report()
    assert PdfReader(io.BytesIO(data)).attachments.keys() == {"waybill-seal.txt"}
    assert written(report(), PDF, KEY) == data


def test_a_real_browser_shows_it_offline_and_prints_it(html: str, tmp_path: Path) -> None:
    """Where a Chromium is installed; the tests above read the same page without one."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print("no Chromium here: the page was read by a parser only", file=sys.stderr)
        return
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    common = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--disable-dev-shm-usage",
    ]
    command = [
        *common,
        "--enable-logging=stderr",
        "--no-pdf-header-footer",
        f"--print-to-pdf={tmp_path / 'report.pdf'}",
        (tmp_path / "report.html").as_uri(),
    ]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Refused" not in told.stderr
    assert "CONSOLE" not in told.stderr
    pages = [page.extract_text() for page in PdfReader(tmp_path / "report.pdf").pages]
    assert "Excursion" in pages[0]
    assert "2 h uncovered" in pages[0].replace("\u00a0", " ")
    assert "earlier revision" in " ".join(pages)
    assert "2: late readings" in " ".join(pages)
    assert "1: late readings" in " ".join(pages)  # what is folded on the screen is on paper


@pytest.mark.parametrize("form", [HTML, PDF])
def test_a_text_that_looks_like_the_seal_is_a_text(form: report_pb2.ReportFormat.ValueType) -> None:
    made = report(name="WAYBILL-SEAL:x:END-SEAL")
    made.shipment.description = made.shipment.reference = "WAYBILL-SEAL:0000:END-SEAL"
    found = seal.opened(written(made, form, KEY))
    assert (found.intact, found.genuine) == (True, True)
