// SPDX-License-Identifier: Apache-2.0

/// Fencing tokens are kept escaped from now on (`EscapedText`): there may be NUL in one, which no
/// text of Postgres can hold. Those kept so far have none.
let migration0030 = Migration(
    number: 30, name: "escaped fencing tokens",
    sql: #"""
        UPDATE millrace.stream SET fencing_token = replace(fencing_token, '\', '\\')
        WHERE strpos(fencing_token, '\') > 0;
        """#)
