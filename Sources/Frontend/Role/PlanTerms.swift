// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Observability
internal import Primitives

/// For how long a plan may be used: half as long as the cell keeps objects that nothing refers to
/// any more. The other half covers how old the answers were that the plan was made of, and clocks.
///
/// The cell's wait is asked for again and again. Whoever cannot ask goes on with what it knows: a
/// plan that is used for too long finds objects gone, and is made again.
final class PlanTerms {
    private let world: FrontendWorld
    private(set) var planNanosecondsMax: Nanoseconds
    /// Until the cell has answered.
    private static let unknownNanoseconds: Nanoseconds = .seconds(1)
    private static let askNanoseconds: Nanoseconds = .seconds(10)

    init(world: FrontendWorld) {
        self.world = world
        planNanosecondsMax =
            world.terms == nil
            ? Self.plan(waiting: PlanWait.standard.shortest) : Self.unknownNanoseconds
    }

    /// Begins to ask.
    func start() {
        guard let terms = world.terms else { return }
        world.loop.spawn { [weak self] in
            await self?.ask(terms)
            self?.world.loop.after(Self.askNanoseconds) { [weak self] in self?.start() }
        }
    }

    private func ask(_ terms: any CellTerms) async {
        do throws(MetadataError) {
            planNanosecondsMax = Self.plan(waiting: try await terms.planWait().shortest)
        } catch {
            world.log.info("terms_not_read", [("error", error.description)])
        }
    }

    private static func plan(waiting milliseconds: UInt64) -> Nanoseconds {
        .milliseconds(Int64(clamping: min(milliseconds, 1 << 40) / 2))
    }
}
