"""Our SQL in PostgreSQL's words."""

import pytest

from fleetgate.store.dialect import translate


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        ("SELECT 1", "SELECT 1", ()),
        ("SELECT :a, :b, :a", "SELECT $1, $2, $1", ("a", "b")),
        ("WHERE a=:a_1 AND b>:b;", "WHERE a=$1 AND b>$2;", ("a_1", "b")),
        ("(:a,:b)", "($1,$2)", ("a", "b")),
        ("SELECT ':a', 'it''s :b', :c", "SELECT ':a', 'it''s :b', $1", ("c",)),
        ('SELECT ":a" FROM ":b""c"', 'SELECT ":a" FROM ":b""c"', ()),
        ("SELECT x::text, :a::text", "SELECT x::text, $1::text", ("a",)),
        ("SELECT 1 -- :a 'b\n, :c", "SELECT 1 -- :a 'b\n, $1", ("c",)),
        ("SELECT 1 /* :a ' */, :c", "SELECT 1 /* :a ' */, $1", ("c",)),
        ("SELECT 5 % 3, '%s', :a", "SELECT 5 % 3, '%s', $1", ("a",)),
        ("SELECT CAST(:a AS TEXT)", 'SELECT CAST($1 AS TEXT) COLLATE "C"', ("a",)),
        ("SELECT cast(:a as text )", 'SELECT cast($1 as text ) COLLATE "C"', ("a",)),
        ("SELECT 'CAST(x AS TEXT)'", "SELECT 'CAST(x AS TEXT)'", ()),
        ("SELECT text FROM texts", "SELECT text FROM texts", ()),
        ("CREATE TABLE t (a TEXT NOT NULL)", 'CREATE TABLE t (a TEXT COLLATE "C" NOT NULL)', ()),
        ("ALTER TABLE t ADD COLUMN a TEXT", 'ALTER TABLE t ADD COLUMN a TEXT COLLATE "C"', ()),
        (
            "CREATE TABLE texts (a TEXT DEFAULT 'TEXT', b BIGINT)",
            "CREATE TABLE texts (a TEXT COLLATE \"C\" DEFAULT 'TEXT', b BIGINT)",
            (),
        ),
        ("CREATE INDEX i ON t (text)", "CREATE INDEX i ON t (text)", ()),
    ],
)
def test_a_statement_is_translated(ours: str, theirs: str, names: tuple[str, ...]) -> None:
    assert translate(ours) == (theirs, names)
