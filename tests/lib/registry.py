#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers for tests of registries, on free ports of the loopback.

  registry.py serve --layout DIR --dir DIR [OPTION]...
     a registry that serves one OCI layout under any name, and misbehaves:
       --auth basic|bearer  wants user alice, password secret
       --cut N              breaks each blob off after N bytes
       --no-range           and does not know Range
       --fail N             answers the first N requests with 503
       --redirect           sends blobs from another port (another host)
       --lie                sends other bytes than asked for
       --stall              never sends the second half of a blob
       --tls CERT KEY       speaks TLS
  registry.py token --dir DIR --key KEY --cert DER
     a token server for docker-registry (user alice, password secret)

The port is written to DIR/port when the server is ready, each request to
DIR/requests.
"""
import argparse
import base64
import http.server
import json
import os
import ssl
import subprocess
import threading
import time
import urllib.parse

BASIC = "Basic " + base64.b64encode(b"alice:secret").decode()
TOKEN = "a.good-token"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, what=""):
        with self.server.lock, open(self.server.args.dir + "/requests", "a") as f:
            auth = self.headers.get("Authorization", "-").split()[0]
            f.write(f"{self.server.role} {self.path} auth={auth} "
                    f"range={self.headers.get('Range', '-')} {what}\n")

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def token(self, args):
        if self.headers.get("Authorization") != BASIC:
            return self.answer(401, b"{}", WWW_Authenticate="Basic realm=token")
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        token = TOKEN if args.mode == "serve" else jwt(args, query)
        self.answer(200, json.dumps({"token": token}).encode())

    def allowed(self, args):
        auth = self.headers.get("Authorization")
        if args.auth == "basic" and auth != BASIC:
            self.answer(401, b'{"errors":[{"message":"who are you"}]}',
                        WWW_Authenticate='Basic realm="test"')
            return False
        if args.auth == "bearer" and auth != "Bearer " + TOKEN:
            realm = f"http://127.0.0.1:{self.server.server_port}/token?x=y"
            self.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="{realm}",service="test"')
            return False
        return True

    def do_GET(self):
        args = self.server.args
        self.note()
        if self.path.startswith("/token"):
            return self.token(args)
        with self.server.lock:
            self.server.failures += 1
            fail = self.server.failures <= args.fail
        if fail:
            return self.answer(503, b"busy", Retry_After="0")
        if self.server.role == "home" and not self.allowed(args):
            return None
        parts = self.path.split("/")
        if len(parts) < 3 or parts[-2] not in ("manifests", "blobs"):
            return self.answer(404, b'{"errors":[{"message":"page unknown"}]}')
        if parts[-2] == "manifests":
            return self.manifest(args, parts[-1])
        if args.redirect and self.server.role == "home":
            return self.answer(307, Location=f"http://127.0.0.1:{self.server.other}{self.path}")
        return self.blob(args, parts[-1])

    def manifest(self, args, reference):
        index = json.load(open(args.layout + "/index.json"))
        digest = reference if reference.startswith("sha256:") else None
        for entry in index["manifests"]:
            if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == reference:
                digest = entry["digest"]
        try:
            body = open(f"{args.layout}/blobs/sha256/{digest[7:]}", "rb").read()
        except (OSError, TypeError):
            return self.answer(404, b'{"errors":[{"code":"X","message":"manifest unknown\\u001b[31m"}]}')
        if args.lie:
            body = body.replace(b"layers", b"layer5")
        self.answer(200, body, Content_Type="application/vnd.oci.image.manifest.v1+json")

    def blob(self, args, digest):
        data = open(f"{args.layout}/blobs/sha256/{digest[7:]}", "rb").read()
        start, wanted = 0, self.headers.get("Range")
        if wanted and not args.no_range:
            start = int(wanted[len("bytes="):].split("-")[0])
        body = data[start:]
        headers = {"Content_Length": str(len(body))}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if args.stall and len(body) > 10000:
            self.answer(200, body[:len(body) // 2], **headers)
            time.sleep(3600)
        if args.cut and len(body) > args.cut and not (args.no_range and wanted):
            body = body[:args.cut]
            self.close_connection = True
        self.answer(206 if start else 200, body, **headers)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(args, query):
    """The token that docker-registry wants, signed with its certificate's key."""
    access = []
    for scope in query.get("scope", []):
        kind, name, actions = scope.split(":")
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    head = {"typ": "JWT", "alg": "RS256",
            "x5c": [base64.b64encode(open(args.cert, "rb").read()).decode()]}
    now = int(time.time())
    claims = {"iss": "test", "sub": "alice", "aud": query["service"][0], "exp": now + 600,
              "nbf": now - 60, "iat": now, "jti": str(now), "access": access}
    signed = b64(json.dumps(head).encode()) + "." + b64(json.dumps(claims).encode())
    signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", args.key],
                               input=signed.encode(), check=True,
                               stdout=subprocess.PIPE).stdout
    return signed + "." + b64(signature)


def start(args, role):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.args, server.role, server.failures, server.lock = args, role, 0, threading.Lock()
    server.daemon_threads = True
    return server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["serve", "token"])
    parser.add_argument("--dir", required=True)
    parser.add_argument("--layout")
    parser.add_argument("--auth")
    parser.add_argument("--cut", type=int, default=0)
    parser.add_argument("--no-range", action="store_true")
    parser.add_argument("--fail", type=int, default=0)
    parser.add_argument("--redirect", action="store_true")
    parser.add_argument("--lie", action="store_true")
    parser.add_argument("--stall", action="store_true")
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--key")
    parser.add_argument("--cert")
    args = parser.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    home, other = start(args, "home"), start(args, "elsewhere")
    home.other = other.server_port
    if args.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*args.tls)
        home.socket = context.wrap_socket(home.socket, server_side=True)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    with open(args.dir + "/port.new", "w") as f:
        f.write(str(home.server_port))
    os.rename(args.dir + "/port.new", args.dir + "/port")
    home.serve_forever()


main()
