"""The HTML report of a sweep: everything is in one file, and nothing in it is executed."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ftexp.sweeps.html_report import write_html_report


def test_what_the_user_named_is_text_and_pictures_are_inside(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "history.png")
    evil = "<script>alert('x')</script>"
    best = {"trial": 3, "values": {"val_loss": 0.12345}, "parameters": {evil: evil}, "command": f"echo {evil} && b"}
    content = {
        "study": evil,
        "n_trials": 1,
        "trials": {"COMPLETE": 1},
        "seconds": 1.0,
        "best": [best],
        "confirm": [{"trial": 3, "mean": 0.5, "seeds": [1, 2]}],
    }
    write_html_report(tmp_path, content, [{"trial": 3, "error": evil}])
    html = (tmp_path / "sweep.html").read_text()
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") == 6
    assert 'src="data:image/png;base64,iVBOR' in html
    assert "0.1235" in html
    assert "&amp;&amp; b" in html


def test_a_long_error_takes_several_lines_and_a_short_one_stays_in_one(tmp_path: Path) -> None:
    content = {"study": "s", "n_trials": 2, "trials": {}, "seconds": 1.0, "best": [], "confirm": []}
    write_html_report(tmp_path, content, [{"error": "no memory"}, {"error": "no memory " * 20}])
    html = (tmp_path / "sweep.html").read_text()
    assert "<td>no memory</td>" in html
    assert html.count("<td class=long>no memory no memory") == 1
