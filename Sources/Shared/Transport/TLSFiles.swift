// SPDX-License-Identifier: Apache-2.0

internal import NIOSSL
internal import RPC

/// Where a process's certificate, its key, and whom it trusts are: PEM files.
package struct TLSFiles: Sendable {
    package var certificate: String
    package var key: String
    /// The authorities that peers' certificates must come from; used between our processes only.
    package var roots: String?

    package init(certificate: String, key: String, roots: String? = nil) {
        self.certificate = certificate
        self.key = key
        self.roots = roots
    }

    /// For clients from anywhere: HTTP/2 or HTTP/1.1 by ALPN, no certificate asked for.
    func publicServer() throws(NetworkError) -> NIOSSLContext {
        try context { configuration in
            configuration.applicationProtocols = ["h2", "http/1.1"]
            configuration.minimumTLSVersion = .tlsv12
        }
    }

    /// For our own processes, which both show a certificate of the same authorities. Names are not
    /// compared: an address in the metadata is where a process is, not who it is.
    func mutual() throws(NetworkError) -> NIOSSLContext {
        guard let roots else { throw NetworkError("TLS between processes needs trust roots") }
        return try context { configuration in
            configuration.trustRoots = .file(roots)
            configuration.certificateVerification = .noHostnameVerification
            configuration.minimumTLSVersion = .tlsv13
        }
    }

    private func context(
        _ refine: (inout TLSConfiguration) -> Void
    ) throws(NetworkError) -> NIOSSLContext {
        do {
            let chain = try NIOSSLCertificate.fromPEMFile(certificate)
            let key = try NIOSSLPrivateKey(file: key, format: .pem)
            var configuration = TLSConfiguration.makeServerConfiguration(
                certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
            refine(&configuration)
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw NetworkError("TLS with \(certificate): \(error)")
        }
    }
}
