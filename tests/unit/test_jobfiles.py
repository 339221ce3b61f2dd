"""The file lists of job definitions."""

from __future__ import annotations

import pytest

from espilot.errors import MessageError
from espilot.wire.jobfiles import (
    JobInput,
    read_checksum,
    read_endpoints_out,
    read_inputs,
    read_member_lists,
    read_optional_outputs,
    replace_lists,
    replace_names,
)
from espilot.wire.mergedef import name_outputs

TAR = "EventService_premerge_7_1-7-6-1-3.tar"


def test_inputs_of_a_merge_job() -> None:
    """Archives are told from loose files; what is NULL or missing is not known."""
    definition = {
        "inFiles": f"zip://{TAR},out.7-8-9-1-1",
        "fsize": "860160,NULL",
        "checksum": "ad:365038",
        "prodDBlockToken": "1641/1000,1642",
        "ddmEndPointIn": "NULL,DISK",
    }
    assert read_inputs(definition) == (
        JobInput(TAR, True, 860160, "00365038", "", 1641, ""),
        JobInput("out.7-8-9-1-1", False, None, "", "", 1642, "DISK"),
    )


def test_inputs_come_once_and_none_are_none() -> None:
    """A file that is listed twice is one input; NULL is no file."""
    assert [i.lfn for i in read_inputs({"inFiles": "a,b,a"})] == ["a", "b"]
    assert read_inputs({"inFiles": "NULL"}) == read_inputs({}) == ()


@pytest.mark.parametrize("name", ["../up", "a/b", "zip://../x", "zip:///etc/passwd", "a\nb", ".."])
def test_bad_input_names_are_refused(name: str) -> None:
    """A name that could leave its directory is no input."""
    with pytest.raises(MessageError, match="inFiles"):
        read_inputs({"inFiles": name})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ad:1a2b3c4d", ("1a2b3c4d", "")),
        ("1A2B", ("00001a2b", "")),
        ("md:" + "A" * 32, ("", "a" * 32)),
        ("b" * 32, ("", "b" * 32)),
        ("", ("", "")),
        ("ad:nonsense", ("", "")),
        ("sha:1234", ("", "")),
    ],
)
def test_checksums(text: str, found: tuple[str, str]) -> None:
    """Adler32 has its eight digits back; what is no checksum is none."""
    assert read_checksum(text) == found


def test_member_lists() -> None:
    """Each list has its files; a name that could leave its directory is refused."""
    definition = {"writeToFile": "inputFor_a:a.1,a.2^inputFor_b:b.1"}
    assert read_member_lists(definition) == {"inputFor_a": ("a.1", "a.2"), "inputFor_b": ("b.1",)}
    for text in ("../x:a", "x:../a", "x", "x:a/b"):
        with pytest.raises(MessageError, match="writeToFile"):
            read_member_lists({"writeToFile": text})


def test_arguments_get_the_files_of_their_lists() -> None:
    """The argument of a list becomes its file, which then holds the option as well."""
    arguments = ["--in=@inputFor_a", "--out=a", "@inputFor_b", "me@inputFor_a"]
    lists = {"inputFor_a": "a.txt", "inputFor_b": "b.txt"}
    replaced, options = replace_lists(arguments, lists)
    assert replaced == ["@a.txt", "--out=a", "@b.txt", "me@inputFor_a"]
    assert options == {"inputFor_a": "--in", "inputFor_b": ""}


def test_names_get_their_places() -> None:
    """Only whole names in a comma list are replaced."""
    places = {"a": "/in/a", "b": "root://host//b"}
    arguments = ["--input=a,b", "a", "--aa=x", "ab", "--outputs=c,a"]
    replaced = ["--input=/in/a,root://host//b", "/in/a", "--aa=x", "ab", "--outputs=c,/in/a"]
    assert replace_names(arguments, places) == replaced


def test_outputs() -> None:
    """Endpoints belong to outputs by position; optional outputs come as list or text."""
    definition = {"outFiles": "a,b,log", "ddmEndPointOut": "X,NULL"}
    assert read_endpoints_out(definition) == {"a": "X", "b": "", "log": ""}
    assert read_optional_outputs({"allowNoOutput": ["a"]}) == {"a"}
    assert read_optional_outputs({"allowNoOutput": "a,b"}) == {"a", "b"}
    assert read_optional_outputs({}) == frozenset()


def test_a_unit_has_its_own_outputs() -> None:
    """Outputs and their lists get the unit's names; options and parts of other names stay."""
    told = "--out=out --in=@inputFor_out,x.out -out 'out' --more=@inputFor_b.root"
    named = name_outputs(told, {"out": "out._1", "b.root": "b.root._1"})
    assert named == (
        "--out=out._1 --in=@inputFor_out._1,x.out -out 'out._1' --more=@inputFor_b.root._1"
    )
