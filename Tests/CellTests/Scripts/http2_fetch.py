# SPDX-License-Identifier: Apache-2.0
"""One request over HTTP/2 that takes trailers, which curl leaves alone behind a known length.

    http2_fetch.py HOST PORT PATH RANGE HEAD-FILE BODY-FILE

The head file has the status line, the headers and the trailers, as curl's option -D writes them.
"""

import socket
import sys

import h2.config
import h2.connection
import h2.events

host, port, path, range_, head_file, body_file = sys.argv[1:]
lines, body, is_over = [], b"", False
connection = h2.connection.H2Connection(
    h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
with socket.create_connection((host, int(port)), timeout=20) as plain:
    connection.initiate_connection()
    connection.send_headers(1, [
        (":method", "GET"), (":path", path), (":scheme", "http"),
        (":authority", "%s:%s" % (host, port)), ("te", "trailers"), ("range", range_),
    ], end_stream=True)
    plain.sendall(connection.data_to_send())
    while not is_over:
        data = plain.recv(65_536)
        if not data:
            sys.exit("FAILED: the connection was closed")
        for event in connection.receive_data(data):
            if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                lines += ["%s: %s" % each for each in event.headers]
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.StreamEnded):
                is_over = True
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                sys.exit("FAILED: %s" % event)
        plain.sendall(connection.data_to_send())
if not lines[0].startswith(":status: "):
    sys.exit("FAILED: %s" % lines)
with open(head_file, "w") as file:
    file.write("\n".join(["HTTP/2 " + lines[0].split()[1]] + lines[1:]) + "\n")
with open(body_file, "wb") as file:
    file.write(body)
