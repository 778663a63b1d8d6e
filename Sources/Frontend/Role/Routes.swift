// SPDX-License-Identifier: Apache-2.0

internal import HTTP

/// What a path names. Names in it are still percent-encoded: they are judged after the headers.
enum Resource: Equatable {
    case health
    case metricsPage
    case basins
    case basin(String)
    case streams
    case stream(String)
    case records(stream: String)
    case tail(stream: String)
    case accessTokens
    case accessToken(String)
    case accountMetrics
    case basinMetrics(String)
    case streamMetrics(basin: String, stream: String)
    case locations
    case defaultLocation

    /// Nil for what is not routed, which an empty segment never is: `/v1/streams/` is no alias of
    /// `/v1/streams`.
    init?(path: String) {
        guard let segments = URI.segments(of: path), !segments.contains("") else { return nil }
        let name = { (index: Int) in String(segments[index]) }
        switch (segments[0], segments.count) {
        case ("health", 1), ("ping", 1):
            self = .health
            return
        case ("metrics", 1):
            self = .metricsPage
            return
        case ("v1", 2...): break
        default: return nil
        }
        switch (segments[1], segments.count) {
        case ("basins", 2): self = .basins
        case ("basins", 3): self = .basin(name(2))
        case ("streams", 2): self = .streams
        case ("streams", 3): self = .stream(name(2))
        case ("streams", 4) where segments[3] == "records": self = .records(stream: name(2))
        case ("streams", 5) where segments[3] == "records" && segments[4] == "tail":
            self = .tail(stream: name(2))
        case ("access-tokens", 2): self = .accessTokens
        case ("access-tokens", 3): self = .accessToken(name(2))
        case ("metrics", 2): self = .accountMetrics
        case ("metrics", 3): self = .basinMetrics(name(2))
        case ("metrics", 4): self = .streamMetrics(basin: name(2), stream: name(3))
        case ("locations", 2): self = .locations
        case ("locations", 3) where segments[2] == "default": self = .defaultLocation
        default: return nil
        }
    }

    var methods: [String] {
        switch self {
        case .health, .metricsPage, .tail, .accountMetrics, .basinMetrics, .streamMetrics,
            .locations:
            ["GET"]
        case .basins, .streams, .records, .accessTokens: ["GET", "POST"]
        case .basin, .stream: ["GET", "PUT", "PATCH", "DELETE"]
        case .accessToken: ["DELETE"]
        case .defaultLocation: ["GET", "PUT"]
        }
    }

    /// Whether it is answered without a token.
    var isOpen: Bool { self == .health || self == .metricsPage }
}
