"""The command line: every verb answers --help with an example, and bad input is one line with exit code 2."""

import pytest

from genecompass.cli import VERBS, main
from genecompass.commands.benchmark import _Benchmarks


def _run(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code, capsys.readouterr()


@pytest.mark.parametrize("verb", [*VERBS, *(f"benchmark {name}" for name in _Benchmarks.verbs)])
def test_every_verb_has_help(verb, capsys):
    code, said = _run([*verb.split(), "--help"], capsys)
    assert code == 0
    assert "Usage: genecompass" in said.out


def test_version(capsys):
    code, said = _run(["--version"], capsys)
    assert code == 0
    assert said.out.strip().count(".") == 2


def test_bad_input_is_one_line(capsys, tmp_path):
    code, said = _run(["vocabulary", "show", str(tmp_path / "absent.parquet"), "INS"], capsys)
    assert code == 2
    assert said.err.count("\n") == 1
    assert "absent.parquet" in said.err
