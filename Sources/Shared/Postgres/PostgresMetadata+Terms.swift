// SPDX-License-Identifier: Apache-2.0

package import Metadata

extension PostgresMetadata: CellTerms {
    package func planWait() async throws(MetadataError) -> PlanWait {
        let rows = try await ask(.planWait, []).rows
        guard rows.count == 1 else { throw unexpected("\(rows.count) rows") }
        var row = ColumnReader(rows)
        return PlanWait(shortest: try row.number(), longest: try row.number())
    }

    package func setPlanWait(_ milliseconds: UInt64) async throws(MetadataError) {
        _ = try await ask(.setPlanWait, [String(milliseconds)], writes: .guarded)
    }
}

extension Statement {
    static let planWait = Statement(
        "plan_wait", "SELECT shortest, longest FROM millrace.plan_wait()")
    static let setPlanWait = Statement("set_plan_wait", "SELECT millrace.set_plan_wait($1)")
}
