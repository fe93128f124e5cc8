"""docs/bulk-registration.md is typed as it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509

from tests.integration.server import Server, run
from tests.test_docs import blocks

PAGE = Path(__file__).parents[2] / "docs" / "bulk-registration.md"


@pytest.mark.needs("curl", "openssl")
def test_the_steps_of_the_page_run(tmp_path: Path) -> None:
    shell = [code for language, code in blocks(PAGE.read_text()) if language == "sh"]
    serve, *steps, _with_s3 = shell
    assert serve == "fleetgate serve --bucket factory=./factory"
    with Server(tmp_path / "fleetgate-data", "--bucket", "factory=./factory"):
        done = run("bash", "-c", "\n".join(["set -e -o pipefail", *steps]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"Completed",\n    null,\n    2,\n    0,\n    100' in done.stdout
    assert '"resourceLinks": []' in done.stdout
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    for number, result in enumerate(results, 1):
        assert result["lineNumber"] == number
        certificate = x509.load_pem_x509_certificate(result["response"]["CertificatePem"].encode())
        assert certificate.subject.rfc4514_string() == f"CN=lamp-{number}"
    assert len(results) == 2
