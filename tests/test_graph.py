"""The picture of a process, as one who looks at it sees it."""

import re
import subprocess
import sys
import time
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import Hybrid, Process, Sequential, task
from procession._model.strategy import Hybrid as HybridStages
from procession._plan.shape import Shape
from procession.pictures.fold import CROWD, SEVERAL
from procession.pictures.graph import graph_of

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    '"]; click task0 href "javascript:alert(1)"',
    "%%{init: {'securityLevel': 'loose'}}%%",
    "<script>alert(1)</script>",
    "]]> &amp; <!-- \x1b[31m \x00 \u202e \ud800 \ufffe",
    "`markdown`\n---\nend",
    "",
    "   ",
]


def named(name):
    return task(name=name.replace("{", "{{").replace("}", "}}"))(str)


def crawl(pages=100):
    """load ─▶ pages × fetch ─▶ pages × parse ─▶ report, and one task beside them."""
    process = Process("crawl", "parallel")
    page = process.task(named("load"), 0)
    parsed = []
    for _ in range(pages):
        fetched = process.task(named("fetch"), page)
        parsed.append(process.task(named("parse"), fetched))
    process.task(named("report"), parsed)
    process.add_task(named("notify"))
    return process


def cards(graph):
    """Return the name and the tag of each card in the picture, and its hover text."""
    tree = ElementTree.fromstring(graph.svg())
    found = [group for group in tree.iter(f"{SVG}g") if group.get("class") == "node"]
    return [([text.text for text in card.iter(f"{SVG}text")], card.find(f"{SVG}title").text) for card in found]


def lines(graph):
    """Return what the picture says of each line when the pointer is on it."""
    tree = ElementTree.fromstring(graph.svg())
    return [
        group.find(f"{SVG}title").text
        for group in tree.iter(f"{SVG}g")
        if any(path.get("class") in ("value", "order") for path in group.iter(f"{SVG}path"))
    ]


def edges(graph):
    return [(graph.nodes[edge.source].name, graph.nodes[edge.target].name, edge.note) for edge in graph.edges]


def test_a_small_process_shows_each_task_once_with_its_place():
    """Nobody has to guess which card is task 2."""
    process = Process("sum", "parallel")
    one, two = process.task(int, "1"), process.task(int, "2")
    process.task(sum, [one, two])
    assert cards(process.graph()) == [
        (["int", "#0"], "int\n1 task: 0"),
        (["int", "#1"], "int\n1 task: 1"),
        (["sum", "#2"], "sum\n1 task: 2"),
    ]
    assert lines(process.graph()) == ["sum takes the value of int"] * 2


def test_like_tasks_that_are_wired_alike_share_a_card():
    """Hundreds of tasks make a picture of five cards, which say how many tasks each stands for, and which."""
    graph = crawl().graph()
    assert [card for card, _ in cards(graph)] == [
        ["load", "#0"],
        ["fetch", "× 100"],
        ["parse", "× 100"],
        ["report", "#201"],
        ["notify", "#202"],
    ]
    assert edges(graph) == [
        ("load", "fetch", ""),
        ("fetch", "parse", "one each"),
        ("parse", "report", ""),
    ]
    assert cards(graph)[1][1] == "fetch\n100 tasks: 1, 3, 5, …, 195, 197, 199"


def test_folding_respects_edges():
    """Tasks of one name that wait for different things, or that different things wait for, stand apart."""
    process = Process("two", "parallel")
    left, right = process.task(named("left")), process.task(named("right"))
    for number in range(60):
        process.add_task(named("work"), left if number % 3 else right)
    last = process.task(named("work"), left)
    process.task(named("end"), last)
    graph = process.graph()
    assert [(node.name, len(node.tasks)) for node in graph.nodes] == [
        ("left", 1),
        ("right", 1),
        ("work", 20),
        ("work", 40),
        ("work", 1),
        ("end", 1),
    ]


def test_a_long_chain_is_one_card_that_says_so():
    """A thousand tasks, each waiting for the one before, are a row."""
    process = Process("chain", "parallel")
    value = process.task(named("load"))
    for _ in range(1000):
        value = process.task(named("step"), value)
    process.task(named("save"), value)
    assert [card for card, _ in cards(process.graph())] == [
        ["load", "#0"],
        ["step", "× 1,000 in a row"],
        ["save", "#1001"],
    ]


def test_a_task_that_many_like_it_wait_for_is_no_row_with_them():
    """Forty steps that all wait for a first step do not wait for each other."""
    process = Process("fan", "parallel")
    first = process.task(named("step"))
    for _ in range(40):
        process.add_task(named("step"), first)
    assert [card for card, _ in cards(process.graph())] == [["step", "#0"], ["step", "× 40"]]


def test_tasks_in_order_fold_only_as_far_as_they_stand_together():
    """Order is kept: fifty loads, a check, fifty loads are three cards, joined by dotted lines."""
    process = Process("order")
    for name in ["load"] * 50 + ["check"] + ["load"] * 50:
        process.add_task(named(name))
    graph = process.graph()
    assert [(node.name, len(node.tasks)) for node in graph.nodes] == [("load", 50), ("check", 1), ("load", 50)]
    assert lines(graph) == ["check comes after load", "load comes after check"]


def test_many_names_fold_into_ranges():
    """A hundred tasks with a name each are not a hundred cards."""
    process = Process("shards", "parallel")
    for number in range(100):
        process.add_task(named(f"shard_{number}"))
    assert [card for card, _ in cards(process.graph())] == [["shard_0 … shard_99", "× 100"]]


def test_stages_stand_one_after_the_other_with_what_they_are():
    """A hybrid process is two boxes; the second comes after all of the first."""
    process = Process("both", Hybrid(first=2))
    first = process.task(named("a"))
    process.add_task(named("b"))
    process.map(str, first)
    process.add_task(Process("inside"))
    graph = process.graph()
    svg = graph.svg()
    assert "2 tasks, in order" in svg
    assert "2 tasks, at once" in svg
    assert svg.count("after all of the stage before") == 1
    assert [node.kind for node in graph.nodes] == ["task", "task", "map", "process"]
    assert cards(graph)[2][1] == "map of str\none call for each element, 1 task: 2"
    assert edges(graph) == [("a", "b", ""), ("a", "map of str", "")]
    assert "task2[[" in str(graph)
    assert "stage0 ==> stage1" in str(graph)


def test_an_empty_process_has_a_picture_too():
    """It says that there are no tasks."""
    graph = Process("empty").graph()
    ElementTree.fromstring(graph.svg())
    assert "no tasks" in graph.svg()
    assert "no tasks" in str(graph)


@pytest.mark.parametrize("count", [len(HOSTILE), 40])
def test_hostile_names_are_only_text(count):
    """Whatever a name holds, it is text in the SVG, and cannot be anything but a label in Mermaid."""
    process = Process("<b>\n%%{init:{}}%%", "parallel")
    for number in range(count):
        process.add_task(named(HOSTILE[number % len(HOSTILE)]))
    svg, mermaid = process.graph().svg(), str(process.graph())
    tree = ElementTree.fromstring(svg)
    assert {element.tag.removeprefix(SVG) for element in tree.iter()} <= {
        *("svg", "title", "style", "rect", "text", "g", "path")
    }
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    for line in mermaid.splitlines()[2:]:
        assert re.fullmatch(
            r'\s*(end|direction LR|subgraph stage0\["[\w ,]+"\]|task\d+\["[\w .,:#;…×]*[\w;)][\w .,:#;…×]*"\])', line
        )
    assert "%%" not in mermaid
    assert "click task0 href #34;" in mermaid or count == 40
    svg.encode()
    mermaid.encode()


def test_nothing_in_a_picture_comes_from_elsewhere():
    """No script, no link, no font or image from any place but the file itself, and colours for dark and light."""
    svg = crawl().graph().svg()
    assert "<script" not in svg
    assert "href" not in svg
    assert "url(" not in svg
    assert svg.count("http") == 1  # the name of the SVG language
    assert "prefers-color-scheme:dark" in svg


def test_a_notebook_shows_process_and_graph():
    """The last expression of a cell is enough."""
    process = crawl()
    graph = process.graph()
    assert process._repr_svg_() == process._repr_html_() == graph._repr_svg_() == graph._repr_html_() == graph.svg()
    shown = graph._repr_mimebundle_(include=None, exclude=None)
    assert shown == {"image/svg+xml": graph.svg(), "text/html": graph.svg(), "text/plain": graph.mermaid()}


def test_cards_do_not_overlap():
    """Every card has its own place inside the picture."""
    process = Process("wide", "parallel")
    values = [process.task(named(f"source number {number}")) for number in range(8)]
    for number in range(8):
        process.add_task(named(f"sink {number}"), values[number], values[number - 3])
    process.add_task(named("all"), values)
    assert len(boxes_of(process.graph())) == 17


def boxes_of(graph):
    """Return left, top, width and height of each card; none lies on another one or leaves the picture."""
    tree = ElementTree.fromstring(graph.svg())
    boxes = []
    for card in tree.iter(f"{SVG}rect"):
        if (card.get("class") or "").split()[:1] == ["card"]:
            boxes.append([float(card.get(key)) for key in ("x", "y", "width", "height")])
    for place, (x, y, width, height) in enumerate(boxes):
        assert 0 < x < x + width < float(tree.get("width"))
        assert 0 < y < y + height < float(tree.get("height"))
        for x_, y_, width_, height_ in boxes[place + 1 :]:
            assert x + width <= x_ or x_ + width_ <= x or y + height <= y_ or y_ + height_ <= y
    return boxes


@pytest.mark.parametrize("kind", ["values", "in order", "with one value for several"])
def test_a_long_chain_stands_in_columns(kind):
    """Sixty tasks with names of their own fit a window, and no line between them runs through a card."""
    process = Process("chain", "sequential" if kind == "in order" else "parallel")
    first = value = process.task(named("configuration"))
    for number in range(1, 60):
        taken = [] if kind == "in order" else [value]
        if kind == "with one value for several" and number % 7 == 0:
            taken.append(first)
        value = process.task(named(f"step_{number}_of_the_chain"), *taken)
    tree = ElementTree.fromstring(process.graph().svg())
    assert float(tree.get("width")) < 1100
    assert float(tree.get("height")) < 1300
    boxes = boxes_of(process.graph())
    assert len({left for left, *_ in boxes}) > 2
    columns = [[box[1] for box in boxes if box[0] == left] for left in sorted({left for left, *_ in boxes})]
    assert [top for tops in columns for top in tops] == [top for _, top, *_ in boxes], "each goes on where one ended"
    paths = [path.get("d") for path in tree.iter(f"{SVG}path") if path.get("class") in ("value", "order")]
    assert len(paths) == 59 + 8 * (kind == "with one value for several")
    for path in paths:
        points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)(?=[A-Z]|$)", path)]
        for (x, y), (x_, y_) in pairwise(points):
            for left, top, width, height in boxes:
                outside = max(x, x_) <= left or min(x, x_) >= left + width
                assert outside or max(y, y_) <= top or min(y, y_) >= top + height


def test_a_value_that_passes_tasks_in_order_is_drawn_beside_them():
    """The line from the first task to the third does not run through the second."""
    process = Process("order")
    value = process.task(named("a"))
    process.add_task(named("b"))
    process.add_task(named("c"), value)
    tree = ElementTree.fromstring(process.graph().svg())
    (line,) = [path.get("d") for path in tree.iter(f"{SVG}path") if path.get("class") == "value"]
    card = next(rect for rect in tree.iter(f"{SVG}rect") if rect.get("class") == "card")
    stage = next(rect for rect in tree.iter(f"{SVG}rect") if rect.get("class") == "stage")
    furthest = max(float(x) for x, _ in re.findall(r"([\d.]+) ([\d.]+)", line))
    assert float(card.get("x")) + float(card.get("width")) < furthest
    assert furthest < float(stage.get("x")) + float(stage.get("width"))


def test_100_000_tasks_are_a_small_picture_quickly():
    """The size of the picture, and the time it takes, are bounded."""
    needs = {index: (index - 1,) for index in range(1, 100_000, 2)}
    names = ["fetch", "parse"] * 50_000
    start = time.perf_counter()
    graph = graph_of("large", names, Shape(HybridStages(first=0).stages(100_000), needs, {}))
    assert len(graph.svg()) < 10_000
    assert time.perf_counter() - start < 20
    assert [len(node.tasks) for node in graph.nodes] == [50_000, 50_000]


@st.composite
def processes(draw):
    count = draw(st.integers(0, 120))
    names = draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    if draw(st.booleans()):
        names = [f"{name}{index}" for index, name in enumerate(names)]
    needs = {}
    for index in range(1, count):
        width = draw(st.sampled_from([0, 0, 1, 1, 2, 5]))
        if width:
            near = st.integers(max(0, index - draw(st.sampled_from([1, 3, 30]))), index - 1)
            needs[index] = tuple(sorted(draw(st.sets(near, min_size=1, max_size=width))))
    first = draw(st.integers(0, count))
    strategy = draw(st.sampled_from([Sequential(), HybridStages(first=first), HybridStages(first=0)]))
    return names, strategy.stages(count), needs


@given(processes())
@settings(deadline=None, max_examples=150)
def test_every_task_is_in_exactly_one_node_and_every_wait_is_shown(process):
    """However it is folded: no task is lost or shown twice, nodes wait in no circle, and no wait is left out."""
    names, stages, needs = process
    graph = graph_of("any", names, Shape(stages, needs, {}))
    assert sorted(index for node in graph.nodes for index in node.tasks) == list(range(len(names)))
    assert len(graph.nodes) <= (len(names) if len(names) <= SEVERAL else CROWD)
    node_of = {index: number for number, node in enumerate(graph.nodes) for index in node.tasks}
    for node in graph.nodes:
        stage = stages[node.stage]
        assert all(stage.start <= index < stage.stop for index in node.tasks)
    after = {number: set() for number in range(len(graph.nodes))}
    for edge in graph.edges:
        after[edge.source].add(edge.target)

    def reached(source):
        seen, pending = set(), [source]
        while pending:
            for target in after[pending.pop()] - seen:
                seen.add(target)
                pending.append(target)
        return seen

    reach = {number: reached(number) for number in after}
    assert not any(number in seen for number, seen in reach.items())
    for index, needed in needs.items():
        for need in needed:
            source, target = node_of[need], node_of[index]
            assert source == target or target in reach[source] or graph.nodes[source].stage < graph.nodes[target].stage
    for stage in stages:
        if not stage.at_once:
            inside = range(stage.start, stage.stop)
            assert all(node_of[a] == node_of[b] or node_of[b] in after[node_of[a]] for a, b in pairwise(inside))
    ElementTree.fromstring(graph.svg())


def test_importing_procession_draws_nothing():
    """Whoever draws no picture does not pay for the code that does."""
    code = "import procession, sys; print([name for name in sys.modules if name.startswith('procession.observe')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout
    for module in "graph", "timeline", "cards", "lanes", "fold", "picture":
        assert f"procession.observe.{module}'" not in loaded


PIPELINE = """
from procession import Process

process = Process("sum", "parallel")
process.add_task(print, "must not run")
process.map(len, ["a", "b"])
"""


def procession(*arguments, cwd):
    command = [sys.executable, "-m", "procession", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=50)


def test_the_command_line_draws_a_graph_and_runs_nothing(tmp_path):
    """Mermaid on standard output, or a file in the format that its name says or `--format` asks for."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    done = procession("graph", "pipeline.py:process", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("flowchart LR\n")
    assert "must not run" not in done.stdout
    assert (
        ElementTree.fromstring(procession("graph", "pipeline:process", "--format", "svg", cwd=tmp_path).stdout)
        is not None
    )
    assert procession("graph", "pipeline:process", "-o", "graph.svg", cwd=tmp_path).stdout == ""
    assert ElementTree.parse(tmp_path / "graph.svg").getroot().tag == f"{SVG}svg"
    assert procession("graph", "pipeline:process", "-o", "graph.md", cwd=tmp_path).returncode == 0
    assert (tmp_path / "graph.md").read_text(encoding="utf-8").startswith("flowchart LR\n")


def test_a_graph_is_saved_as_its_file_ends(tmp_path):
    """A picture or Mermaid text, as a timeline is; another ending is refused, and no file is made."""
    process = Process("größe")
    process.add_task(len, "a")
    graph = process.graph()
    graph.save(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == graph.svg()
    for name in "graph.mmd", "graph.mermaid", "graph.md", "graph.txt":
        graph.save(str(tmp_path / name))
        assert (tmp_path / name).read_text(encoding="utf-8") == str(graph)
    with pytest.raises(ValueError, match=r"\.svg, \.mmd,.* is needed, not 'graph\.png'"):
        graph.save(tmp_path / "graph.png")
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "graph.png"], "ends in .svg, .mmd, .mermaid, .md or .txt is needed, not 'graph.png'"),
        (["-o", "graph"], "is needed, not 'graph'"),
        (["-o", "nowhere/graph.svg"], "there is no folder 'nowhere'"),
        (["--format", "svg", "-o", "graph.md"], "graph.md is not a file of format svg"),
        (["--format", "mermaid", "-o", "graph.svg"], "graph.svg is not a file of format mermaid"),
    ],
)
def test_a_graph_is_not_written_in_a_format_that_its_file_has_not(tmp_path, options, said):
    """A wrong command line is exit status 2 and makes no file."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    done = procession("graph", "pipeline:process", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("graph*"))


def test_a_picture_that_cannot_be_written_is_exit_status_1(tmp_path):
    """It says which file, and why, in a line."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "taken.svg").mkdir()
    for command in ["graph", "-o"], ["run", "--timeline"]:
        done = procession(command[0], "pipeline:process", command[1], "taken.svg", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "procession: taken.svg cannot be written: Is a directory"
