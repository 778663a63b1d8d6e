# SPDX-License-Identifier: Apache-2.0
"""Whom a process of a cell lets in: mutual.py HOST:PORT ROOTS CERTIFICATE KEY yes|no

Shows the certificate (none where it is `-`, no TLS at all where ROOTS is `-`), and tells by what
comes back whether it was let in: a process of a cell that has a peer greets it at once.
"""

import socket
import ssl
import sys

address, roots, certificate, key, wanted = sys.argv[1:]
host, port = address.rsplit(":", 1)


def greeting():
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        if roots == "-":
            plain.sendall(b"\0" * 64)
            return plain.recv(100)
        context = ssl.create_default_context(cafile=roots)
        context.check_hostname = False
        if certificate != "-":
            context.load_cert_chain(certificate, key)
        with context.wrap_socket(plain) as secure:
            return secure.recv(100)


try:
    bytes_, why = greeting(), ""
except (ssl.SSLError, ConnectionError) as error:
    bytes_, why = b"", str(error)
print("%d bytes came back %s" % (len(bytes_), why))
# An alert of TLS in the clear is no greeting.
is_in = len(bytes_) > 7 and bytes_[:1] != b"\x15"
if is_in != (wanted == "yes"):
    print("FAILED: let in" if is_in else "FAILED: refused")
    sys.exit(1)
