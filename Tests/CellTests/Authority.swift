// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A certificate authority and one certificate of it for 127.0.0.1, made by the openssl tool.
struct Authority {
    private let folder: URL

    /// Makes both, in a folder of their own below `parent`.
    init(in parent: URL, _ name: String) throws {
        folder = parent.appending(path: name)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        try openssl(
            ["req", "-x509", "-days", "2", "-subj", "/CN=\(name) authority"] + curve
                + ["-keyout", path("ca.key"), "-out", roots])
        try openssl(
            ["req", "-new", "-subj", "/CN=\(name)"] + curve
                + ["-keyout", key, "-out", path("own.csr")])
        try Data("subjectAltName=IP:127.0.0.1\n".utf8).write(to: folder.appending(path: "names"))
        try openssl([
            "x509", "-req", "-days", "2", "-in", path("own.csr"), "-CA", roots, "-CAkey",
            path("ca.key"), "-CAcreateserial", "-extfile", path("names"), "-out", certificate,
        ])
    }

    var roots: String { path("ca.pem") }
    var certificate: String { path("own.pem") }
    var key: String { path("own.key") }

    private func path(_ name: String) -> String { folder.appending(path: name).path }

    private func openssl(_ arguments: [String]) throws {
        try Program.run("openssl", arguments, [:])
    }
}
