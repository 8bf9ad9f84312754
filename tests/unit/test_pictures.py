"""Pictures show networks, sandboxes, addresses and published ports."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from support.golden import Golden
from support.shell import Shell

from netlib.errors import NoSuchNetwork, Unsupported
from netlib.kernel.fake import FakeKernel
from netlib.net import Net
from netlib.pictures import FORMATS, draw
from netlib.pictures.layout import laid_out, text_width
from netlib.pictures.topology import Join, Topology
from netlib.pictures.topology import Net as Cloud
from netlib.store.memory import MemoryStore


@pytest.fixture
def net() -> Iterator[Net]:
    """Three networks of different kinds, and a sandbox on none."""
    with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
        net.create("front", subnets=["198.51.100.0/24", "2001:db8:1::/64"])
        net.create("back", subnets=["203.0.113.0/24"], internal=True)
        net.create("lan", driver="macvlan", subnets=["192.0.2.0/24"], gateways=["192.0.2.100"])
        for name in ("web", "db", "tv", "idle"):
            net.create_sandbox(name)
        net.connect("front", "web", publish=["8080:80", "127.0.0.1:7000-7001:70-71/udp"])
        net.connect("back", "web")
        net.connect("back", "db")
        net.connect("lan", "tv")
        yield net


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_of_all_that_there_is(net: Net, form: str, golden: Golden) -> None:
    """In every form."""
    if form == "svg":
        pytest.importorskip("drawsvg")
    golden.check(f"picture.{form}", net.draw(form=form))


def test_a_picture_of_some_networks(net: Net) -> None:
    """Only who is on them is shown."""
    assert net.draw(["back"]) == (
        "back  (bridge, internal, 203.0.113.0/24)\n"
        "├─ web   eth1 203.0.113.2\n"
        "└─ db    eth0 203.0.113.3\n"
    )
    with pytest.raises(NoSuchNetwork):
        net.draw(["nope"])


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_a_picture_too(form: str) -> None:
    """An empty host is no error."""
    if form == "svg":
        pytest.importorskip("drawsvg")
    with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
        picture = net.draw(form=form)
    assert picture.endswith("\n")
    if form == "text":
        assert picture == "no network is in use\n"


def test_odd_names_do_not_break_a_language() -> None:
    """References to sandboxes may have any character."""
    odd = 'netns:/a"<b>&\\n'
    picture = Topology(
        networks=(Cloud(name="n", lines=(), internal=False),),
        sandboxes=(odd,),
        joins=(
            Join(network="n", sandbox=odd, interface="", addresses=(), ports=(), is_way_out=False),
        ),
    )
    assert '"box netns:/a\\"<b>&\\\\n"' in draw(picture, "dot")
    assert '["netns:/a&quot;&lt;b&gt;&amp;\\n"]' in draw(picture, "mermaid")
    pytest.importorskip("drawsvg")
    texts = [e.text for e in ET.fromstring(draw(picture, "svg")).iter() if e.tag.endswith("text")]
    assert odd in texts


def test_no_text_of_an_svg_lies_on_another_or_outside(net: Net) -> None:
    """Labels of a sandbox with many networks have a line each."""
    pytest.importorskip("drawsvg")
    for number in range(6):
        net.create(f"extra{number}")
        net.connect(f"extra{number}", "db")
    root = ET.fromstring(net.draw(form="svg"))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = []
    for text in root.iter():
        if text.tag.endswith("text"):
            x, y, size = (float(text.attrib[k]) for k in ("x", "y", "font-size"))
            long = text_width(text.text or "", int(size))
            left = x - long if text.attrib.get("text-anchor") == "end" else x
            boxes.append((left, y - size, left + long, y))
    assert all(b[0] >= 0 and b[2] <= width and b[1] >= 0 and b[3] <= height for b in boxes)
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or (
                other[3] <= one[1])  # fmt: skip
            assert apart, (one, other)


# Of DejaVu Sans and DejaVu Sans Bold, in parts of 2048: what the fonts say of these letters.
@pytest.mark.parametrize(
    ("letters", "regular", "bold"),
    [
        ("W", 2025, 2259), ("m", 1995, 2134), ("w", 1675, 1892), ("0", 1303, 1425),
        ("b", 1300, 1466), ("r", 842, 1010), ("-", 739, 850), ("i", 569, 702), ("Q", 1612, 1741),
        (".", 651, 778), (":", 690, 819),
    ],
)  # fmt: skip
def test_a_text_is_given_the_room_that_it_takes(letters: str, regular: int, bold: int) -> None:
    """With the widest font that is common, and in bold."""
    assert text_width(letters * 20, 13) >= regular * 20 * 13 / 2048
    assert text_width(letters * 20, 13, bold=True) >= bold * 20 * 13 / 2048


def crowded() -> Topology:
    """20 networks with 60 sandboxes, some on two of them."""
    pairs = [(f"box{i}", i % 20) for i in range(60)]
    pairs += [(f"box{i}", (3 * i + 1) % 20) for i in range(0, 60, 7)]
    return Topology(
        networks=tuple(
            Cloud(name=f"network-{i}", lines=("bridge", f"172.28.{i}.0/24"), internal=False)
            for i in range(20)
        ),
        sandboxes=tuple(f"box{i}" for i in range(60)),
        joins=tuple(
            Join(network=f"network-{number}", sandbox=box, interface="eth0", ports=(),
                 addresses=(f"172.28.{number}.2", "2001:db8::2"), is_way_out=True)
            for box, number in pairs
        ),
    )  # fmt: skip


def test_of_many_networks_each_stands_beside_its_sandboxes() -> None:
    """Not all at the top; and no card lies on another."""
    layout = laid_out(crowded())
    for column in (layout.networks, layout.sandboxes):
        assert all(a.y + a.height < b.y for a, b in pairwise(column))
    last, lowest = layout.networks[-1], layout.sandboxes[-1]
    assert abs(last.y - lowest.y) < 4 * lowest.height
    joined = [abs(line.start[1] - line.end[1]) for line in layout.lines]
    assert median(joined) < layout.height / 20


def test_lines_of_a_network_do_not_cross_and_no_line_crosses_a_label() -> None:
    """They leave in the order in which they arrive; labels have a column of their own."""
    layout = laid_out(crowded())
    for net in layout.networks:
        right = net.x + net.width
        mine = [one for one in layout.lines if one.start[0] == right
                and net.y < one.start[1] < net.y + net.height]  # fmt: skip
        assert len(mine) == net.ends
        assert [one.end[1] for one in sorted(mine, key=lambda one: one.start[1])] == sorted(
            one.end[1] for one in mine
        )
    for line in layout.lines:
        assert line.level <= line.end[0] - 8 - text_width(line.label, 12)


def test_svg_without_its_library_says_what_to_do(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other forms need none."""
    import sys

    monkeypatch.setitem(sys.modules, "drawsvg", None)
    with pytest.raises(Unsupported, match="drawsvg"):
        net.draw(form="svg")


def test_graph_prints_or_writes_a_picture(net: Net, tmp_path: Path) -> None:
    """On stdout, into a file, as JSON."""
    shell = Shell(net)
    assert shell("graph").out == net.draw()
    file = tmp_path / "picture.dot"
    assert shell(f"graph --format dot -O {file}").out == ""
    assert file.read_text() == net.draw(form="dot")
    assert shell("graph --json back").document["graph"]["picture"] == net.draw(["back"])
    assert "none/x" in shell(f"graph -O {tmp_path}/none/x", status=2).err
    assert re.search("there is no network", shell("graph nope", status=3).err)
