# SPDX-License-Identifier: Apache-2.0
"""A cell's object store as somebody else sees it: a folder of files, or a bucket of S3."""

import hashlib
import hmac
import http.client
import os
import time
import urllib.parse
import xml.etree.ElementTree as xml


def open_bucket(environment):
    store = environment["MILLRACE_STORE"]
    return Bucket(store, environment) if store.startswith("s3://") else Folder(store)


class Folder:
    """Keys are paths whose last part ends in `@`; what is temporary begins with `#`."""

    def __init__(self, path):
        self.path = path

    def file(self, key):
        return os.path.join(self.path, key + "@")

    def list(self):
        for folder, _, names in os.walk(self.path):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.path)
                yield path[:-1] if path.endswith("@") else path

    def get(self, key):
        try:
            with open(self.file(key), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def put(self, key, body):
        os.makedirs(os.path.dirname(self.file(key)), exist_ok=True)
        with open(self.file(key), "xb") as file:
            file.write(body)


class Bucket:
    """S3, by requests that are signed here."""

    def __init__(self, store, environment):
        url = urllib.parse.urlsplit(store)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.bucket, self.prefix = url.netloc, url.path.strip("/") + "/"
        self.endpoint = urllib.parse.urlsplit(query["endpoint"])
        self.region = query["region"]
        self.key_id = environment["AWS_ACCESS_KEY_ID"]
        self.secret = environment["AWS_SECRET_ACCESS_KEY"]

    def list(self):
        token = None
        while True:
            query = {"list-type": "2", "prefix": self.prefix}
            if token:
                query["continuation-token"] = token
            status, body = self.send("GET", "/" + self.bucket, query)
            assert status == 200, body
            page = xml.fromstring(body)
            namespace = page.tag[:page.tag.index("}") + 1]
            for entry in page.findall(namespace + "Contents"):
                yield entry.find(namespace + "Key").text[len(self.prefix):]
            following = page.find(namespace + "NextContinuationToken")
            if following is None:
                return
            token = following.text

    def get(self, key):
        status, body = self.send("GET", "/%s/%s%s" % (self.bucket, self.prefix, key), {})
        assert status in (200, 404), body
        return body if status == 200 else None

    def put(self, key, body):
        status, reply = self.send("PUT", "/%s/%s%s" % (self.bucket, self.prefix, key), {}, body)
        assert status == 200, reply

    def send(self, method, path, query, body=b""):
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        quoted = urllib.parse.quote(path)
        text = urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote)
        headers = {"host": self.endpoint.netloc, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(sorted(headers))
        lines = "".join("%s:%s\n" % (name, headers[name]) for name in sorted(headers))
        request = "\n".join([method, quoted, text, lines, names, digest])
        scope = "%s/%s/s3/aws4_request" % (now[:8], self.region)
        signed = "\n".join(
            ["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = ("AWS4" + self.secret).encode()
        for part in (now[:8], self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, signed.encode(), "sha256").hexdigest()
        headers["authorization"] = (
            "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s"
            % (self.key_id, scope, names, signature))
        connection = http.client.HTTPConnection(self.endpoint.netloc, timeout=20)
        try:
            connection.request(method, quoted + ("?" + text if text else ""), body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()
