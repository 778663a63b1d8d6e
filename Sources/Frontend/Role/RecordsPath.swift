// SPDX-License-Identifier: Apache-2.0

internal import Compression
internal import HTTP
internal import Observability
internal import Primitives
internal import Records

/// What all requests for records share: one per frontend.
final class DataPath {
    let world: FrontendWorld
    let limits: FrontendLimits
    let cell: Cell
    let metrics: RecordsMetrics
    let budget: AppendBudget
    let begun: BegunFrames
    let fetcher: ReadFetcher
    let terms: PlanTerms
    let tails: TailCalls
    let codec = Codec()
    private(set) lazy var hub = FollowHub(self)
    let responses: ResponseBudget
    var runMemory = RunMemory()
    private var sweepTimer: Timer?
    private var sweepsAt: Nanoseconds = 0
    private var isWakeDue = false
    private static let tightSweepNanoseconds: Nanoseconds = .milliseconds(25)
    private static let sweepNanoseconds: Nanoseconds = .milliseconds(500)
    /// What has something to do once this turn of the loop is over.
    private var turn: [AppendPipe] = []
    private lazy var turnEnd = Errand(on: world.loop) { [weak self] in self?.endTurn() }
    private var sessions: [UInt64: () -> Void] = [:]
    private var sessionsOpened: UInt64 = 0
    private var isDraining = false

    init(world: FrontendWorld, limits: FrontendLimits, cell: Cell) {
        self.world = world
        self.limits = limits
        self.cell = cell
        metrics = RecordsMetrics(world.metrics)
        budget = AppendBudget(limits: limits)
        begun = BegunFrames(loop: world.loop, bytesMax: limits.processInFlightBytesMax)
        fetcher = ReadFetcher(world: world, limits: limits, metrics: metrics)
        terms = PlanTerms(world: world)
        tails = TailCalls(calls: world.calls, loop: world.loop)
        responses = ResponseBudget(limits: limits)
        metrics.addGauges(world.metrics, budget)
        world.metrics.gauge("response_bytes", help: "Bytes held for readers.") { [responses] in
            Double(responses.bytes)
        }
        responses.onWork = { [weak self] in self?.sweepLater() }
        responses.onRelease = { [weak self] in self?.wakeSoon() }
    }

    /// Sees to it that what readers' clients take is measured in time.
    private func sweepLater() {
        let delay =
            responses.isUrgent ? Self.tightSweepNanoseconds : Self.sweepNanoseconds
        let at = world.loop.now + delay
        if sweepTimer != nil, sweepsAt <= at { return }
        sweepTimer?.cancel()
        sweepsAt = at
        sweepTimer = world.loop.after(delay) { [weak self] in
            guard let self else { return }
            self.sweepTimer = nil
            self.responses.sweep(now: self.world.loop.now)
            if self.responses.hasWork { self.sweepLater() }
        }
    }

    private func wakeSoon() {
        guard !isWakeDue else { return }
        isWakeDue = true
        world.loop.soon { [weak self] in
            self?.isWakeDue = false
            self?.responses.wake()
        }
    }

    /// Calls the pipe back when this turn of the loop is over, one for all that ask.
    func atTurnEnd(_ pipe: AppendPipe) {
        turn.append(pipe)
        turnEnd.soon()
    }

    private func endTurn() {
        var pipes = turn
        turn = []
        for pipe in pipes { pipe.turnEnded() }
        // Its memory serves the next turn.
        pipes.removeAll(keepingCapacity: true)
        if turn.isEmpty { turn = pipes }
    }

    /// Registers an open session: what to do with it when this process is about to stop. If it is
    /// already, that is done in the next turn.
    func opened(onDrain: @escaping () -> Void) -> UInt64 {
        sessionsOpened += 1
        let session = sessionsOpened
        sessions[session] = onDrain
        if isDraining { world.loop.soon { [weak self] in self?.sessions[session]?() } }
        return session
    }

    func closed(_ session: UInt64) { sessions[session] = nil }

    /// In the order in which the sessions were opened.
    func drain() {
        isDraining = true
        for (_, drain) in sessions.sorted(by: { $0.key < $1.key }) { drain() }
    }

    /// The message in a client's frame. Errors: `bad_frame`.
    func expand(_ frame: SessionFrame) throws(APIError) -> Bytes {
        let coding: Coding
        switch frame.compression {
        case .none: return frame.payload
        case .zstd: coding = .zstd
        case .gzip: coding = .gzip
        }
        // No bytes are a body of no bytes, but never a whole message of a coding.
        guard !frame.payload.isEmpty else {
            throw APIError(.badFrame, "a frame does not decompress: it is empty")
        }
        do throws(DecompressionError) {
            return try codec.decompress(
                frame.payload, coding, limit: SessionFrame.payloadBytesMax)
        } catch {
            throw APIError(.badFrame, "a frame does not decompress: \(error)")
        }
    }
}

/// What comes of a request before it is known how to serve it.
final class EarlyBody {
    private(set) var parts: [Bytes] = []
    private(set) var isComplete = false
    /// The client left.
    private(set) var isGone = false
    let arrived: Nanoseconds

    /// With `keepsBody`, call `setReading(false)` too, so that little comes.
    init(_ exchange: any HTTPExchange, arrived: Nanoseconds, keepsBody: Bool) {
        self.arrived = arrived
        exchange.onBody = { [self] in if keepsBody { parts.append($0.detached()) } }
        exchange.onBodyEnd = { [self] in isComplete = true }
        exchange.onAbort = { [self] in isGone = true }
    }
}

/// The headers that every request for records may carry, checked.
struct RecordsHeaders {
    var format: RecordFormat
    /// As it came, trimmed; only a stream with a cipher looks at it.
    var encryptionKey: String?
    /// For a stream that the request creates.
    var wish: StreamConfigWish

    /// Errors: `bad_header`, `invalid`.
    init(_ request: HTTPRequest) throws(APIError) {
        // Sessions carry protobuf: the format of JSON strings is nothing to them.
        let isSession = MediaType(request.header("content-type")) == .session
        format = isSession ? .raw : try RecordFormat(header: request.header("s2-format"))
        if let value = request.header("s2-encryption-key") {
            let key = value[...].trimmingBlanks
            guard (1...Limits.encryptionKeyBytesMax).contains(key.utf8.count) else {
                throw APIError(.badHeader, "s2-encryption-key must have 1 to 44 characters")
            }
            encryptionKey = String(key)
        }
        wish = try Self.wish(request.header("s2-stream-config"))
    }

    private static func wish(_ header: String?) throws(APIError) -> StreamConfigWish {
        guard let header else { return StreamConfigWish() }
        do throws(APIError) {
            return try StreamConfigWish(json: Bytes(utf8: header))
        } catch {
            guard error.code == .badJSON else { throw error }
            throw APIError(.badHeader, "s2-stream-config: \(error.message)")
        }
    }

    /// Throws unless the request brings what a stream of this cipher needs.
    func check(_ cipher: Cipher?) throws(APIError) {
        guard let cipher else { return }
        guard let encryptionKey else {
            throw APIError(
                .badHeader, "missing encryption key: the stream's cipher is \(cipher.rawValue)")
        }
        guard Base64.decode(encryptionKey)?.count == 32 else {
            throw APIError(.badHeader, "s2-encryption-key must be 32 bytes in base64")
        }
        throw APIError(.notImplemented, "encrypted streams are not supported yet")
    }
}
