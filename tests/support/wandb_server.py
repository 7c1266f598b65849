"""As much of a W&B server as a run needs to go online; it may be told to vanish."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.endswith("graphql"):
            return self._answer({"exitcode": None, "limits": {}})
        asked = json.loads(body)
        if asked.get("operationName") == "UpsertBucket":
            return self._answer({"data": {"upsertBucket": _bucket(asked["variables"])}})
        return self._answer({"data": {}})

    def do_GET(self) -> None:
        self._answer({})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _bucket(asked: dict[str, Any]) -> dict[str, Any]:
    project = {"id": "p", "name": asked.get("project") or "p", "entity": {"id": "e", "name": "me"}}
    run = {"id": "r", "name": asked.get("name"), "displayName": asked.get("displayName")}
    return {"bucket": {**run, "project": project, "historyLineCount": 0}, "inserted": True}


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
