//! Reading a row into a struct by the names of its columns.
//!
//! sqlx has a derive for this. It is not used, because its crate of macros would build the whole
//! client a second time, for the compiler.

/// Implements [`sqlx::FromRow`]: each field is the column of the same name. The fields after the
/// semicolon are structs that are read from the same row.
macro_rules! from_row {
    ($row:ty { $($column:ident),+ $(; $($part:ident),+)? }) => {
        impl sqlx::FromRow<'_, sqlx::mysql::MySqlRow> for $row {
            fn from_row(row: &sqlx::mysql::MySqlRow) -> Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                Ok(Self {
                    $($column: row.try_get(stringify!($column))?,)+
                    $($($part: sqlx::FromRow::from_row(row)?,)+)?
                })
            }
        }
    };
}
