//! Where the rows of a time are: in the level that was asked for where it is made, and otherwise
//! in the one below.

use rusqlite::Connection;

use crate::analytics::schema::Level;
use crate::analytics::series::Dimension;

/// Rows of one level, from a time until another one, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub level: Level,
    pub from: i64,
    pub until: i64,
}

/// The pieces of which one is made up, in their order.
pub fn made(
    connection: &Connection,
    dimension: Dimension,
    all: Piece,
) -> rusqlite::Result<Vec<Piece>> {
    let Some(finer) = all.level.finer() else {
        return Ok(vec![all]);
    };
    let mut pieces = Vec::new();
    for piece in split(all, finer, &dirty(connection, dimension, all)?) {
        match piece.level == all.level {
            true => pieces.push(piece),
            false => pieces.append(&mut made(connection, dimension, piece)?),
        }
    }
    Ok(pieces)
}

/// The hours or days of a piece that are not made, in their order.
fn dirty(connection: &Connection, dimension: Dimension, all: Piece) -> rusqlite::Result<Vec<i64>> {
    let mut select = connection.prepare_cached(
        "SELECT at FROM dirty WHERE level = ?1 AND dimension = ?2 AND at >= ?3 AND at < ?4
         ORDER BY at",
    )?;
    let key = (all.level.number(), dimension.number(), all.from, all.until);
    let rows = select.query_map(key, |row| row.get(0))?;
    rows.collect()
}

/// What is not made is read from the level below; neighbours in one go.
fn split(all: Piece, finer: Level, dirty: &[i64]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut add = |level, from, until| match pieces.last_mut() {
        Some(last) if last.level == level => last.until = until,
        _ if from < until => pieces.push(Piece { level, from, until }),
        _ => {}
    };
    let mut from = all.from;
    for at in dirty {
        if from < *at {
            add(all.level, from, *at);
        }
        let end = at + all.level.seconds();
        add(finer, *at, end);
        from = end;
    }
    if from < all.until {
        add(all.level, from, all.until);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_made_is_read_from_below() {
        let hour = |number: i64| number * 3_600;
        let all = Piece {
            level: Level::Hour,
            from: hour(10),
            until: hour(20),
        };
        let told = |dirty: &[i64]| {
            let dirty: Vec<i64> = dirty.iter().map(|at| hour(*at)).collect();
            let pieces = split(all, Level::Minute, &dirty);
            let pieces = pieces.iter().map(|piece| {
                let level = &piece.level.table()[..1];
                format!("{level}{}-{}", piece.from / 3_600, piece.until / 3_600)
            });
            pieces.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[]), "h10-20");
        assert_eq!(told(&[10]), "m10-11 h11-20");
        assert_eq!(told(&[12, 13, 19]), "h10-12 m12-14 h14-19 m19-20");
        assert_eq!(told(&(10..20).collect::<Vec<_>>()), "m10-20");
    }
}
