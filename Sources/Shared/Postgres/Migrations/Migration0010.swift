// SPDX-License-Identifier: Apache-2.0

/// Cacheys, which come and go, and the cell's own id, by which they tell one cell's pages from
/// another's.
let migration0010 = Migration(
    number: 10, name: "cacheys",
    sql: #"""
        CREATE TABLE millrace.cell (
            id uuid NOT NULL DEFAULT gen_random_uuid(),
            -- There is one.
            is_this boolean PRIMARY KEY DEFAULT true CHECK (is_this)
        );
        INSERT INTO millrace.cell DEFAULT VALUES;

        CREATE TABLE millrace.cachey (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            zone text NOT NULL,
            address text NOT NULL,
            renewals millrace.u64 NOT NULL DEFAULT 0,
            egress_bytes_per_second millrace.u64 NOT NULL DEFAULT 0
        ) WITH (fillfactor = 50);
        """#)
