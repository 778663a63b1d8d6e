// SPDX-License-Identifier: Apache-2.0

internal import HTTP

/// Who may use the cell: whoever bears its root token.
struct Authorization {
    /// Nil in an open cell, where everybody may do everything.
    private let rootToken: [UInt8]?

    init(rootToken: String?) { self.rootToken = rootToken.map { Array($0.utf8) } }

    func check(_ request: HTTPRequest) throws(APIError) {
        guard let rootToken else { return }
        guard let value = request.header("authorization") else {
            throw APIError(.authn, "an access token is required: Authorization: Bearer <token>")
        }
        let scheme = value.prefix { $0 != " " }
        guard scheme.lowercased() == "bearer" else {
            throw APIError(.authn, "the authorization scheme must be Bearer")
        }
        let token = value.dropFirst(scheme.count).trimmingBlanks
        guard !rootToken.isEmpty, Self.areEqual(rootToken, Array(token.utf8)) else {
            throw APIError(.authn, "the access token is not valid")
        }
    }

    /// Takes as long for every guess of one length, so that time tells nothing about the token.
    static func areEqual(_ secret: [UInt8], _ guess: [UInt8]) -> Bool {
        guard !secret.isEmpty else { return guess.isEmpty }
        var difference = secret.count ^ guess.count
        for (index, byte) in guess.enumerated() {
            difference |= Int(byte ^ secret[index % secret.count])
        }
        return difference == 0
    }
}
