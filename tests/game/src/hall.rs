//! The rules of the game: a hall of tiles, players on them, and what they said last.

use std::collections::{BTreeMap, VecDeque};

use crate::demo::v1::{Line, Player, Position};

/// Tiles along each side; coordinates run from 0 to `SIDE - 1`.
pub const SIDE: u32 = 32;
/// A hall that anybody may enter needs an end.
pub const MAX_PLAYERS: usize = 10_000;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 32;
/// Longest line of talk, in bytes.
pub const MAX_LINE: usize = 256;
/// How many lines the hall remembers.
pub const LINES: usize = 20;

/// Why the hall refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HallError {
    BadName,
    Full,
    NoSuchPlayer(u32),
    BadLine,
}

impl HallError {
    /// The gRPC status code that says the same; the private protocol uses the same numbers.
    pub fn code(&self) -> tonic::Code {
        match self {
            Self::BadName | Self::BadLine => tonic::Code::InvalidArgument,
            Self::Full => tonic::Code::ResourceExhausted,
            Self::NoSuchPlayer(_) => tonic::Code::NotFound,
        }
    }
}

impl std::fmt::Display for HallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadName => write!(f, "a name has 1 to {MAX_NAME} bytes"),
            Self::Full => write!(f, "the hall is full"),
            Self::NoSuchPlayer(id) => write!(f, "no player {id} in the hall"),
            Self::BadLine => write!(f, "a line has 1 to {MAX_LINE} bytes"),
        }
    }
}

impl std::error::Error for HallError {}

/// The state of one hall.
#[derive(Debug, Default)]
pub struct Hall {
    players: BTreeMap<u32, Player>,
    lines: VecDeque<Line>,
    last_id: u32,
}

impl Hall {
    pub fn players(&self) -> impl ExactSizeIterator<Item = &Player> {
        self.players.values()
    }

    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// Puts a new player on the middle tile. Two players may share a name, never an id.
    pub fn enter(&mut self, name: &str) -> Result<Player, HallError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(HallError::BadName);
        }
        if self.players.len() >= MAX_PLAYERS {
            return Err(HallError::Full);
        }
        self.last_id += 1;
        let middle = Position { x: SIDE / 2, y: SIDE / 2 };
        let player = Player { id: self.last_id, name: name.to_owned(), position: Some(middle) };
        self.players.insert(player.id, player.clone());
        Ok(player)
    }

    /// Walks `dx`, `dy` tiles, as far as the walls allow.
    pub fn walk(&mut self, id: u32, dx: i32, dy: i32) -> Result<Position, HallError> {
        let player = self.players.get_mut(&id).ok_or(HallError::NoSuchPlayer(id))?;
        let from = player.position.unwrap_or_default();
        let to = Position { x: step(from.x, dx), y: step(from.y, dy) };
        player.position = Some(to);
        Ok(to)
    }

    pub fn say(&mut self, id: u32, text: &str) -> Result<(), HallError> {
        if !self.players.contains_key(&id) {
            return Err(HallError::NoSuchPlayer(id));
        }
        if text.is_empty() || text.len() > MAX_LINE {
            return Err(HallError::BadLine);
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { player_id: id, text: text.to_owned() });
        Ok(())
    }

    pub fn leave(&mut self, id: u32) -> Result<(), HallError> {
        self.players.remove(&id).map(drop).ok_or(HallError::NoSuchPlayer(id))
    }
}

fn step(from: u32, by: i32) -> u32 {
    from.saturating_add_signed(by).min(SIDE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_enter_in_the_middle_with_ids_of_their_own() {
        let mut hall = Hall::default();
        let ada = hall.enter("ada").unwrap();
        let other = hall.enter("ada").unwrap();
        assert_ne!(ada.id, other.id);
        assert_eq!(ada.position, Some(Position { x: 16, y: 16 }));
        assert_eq!(hall.players().len(), 2);
    }

    #[test]
    fn walls_stop_a_player() {
        let mut hall = Hall::default();
        let id = hall.enter("ada").unwrap().id;
        assert_eq!(hall.walk(id, -100, 3), Ok(Position { x: 0, y: 19 }));
        assert_eq!(hall.walk(id, i32::MAX, i32::MIN), Ok(Position { x: 31, y: 0 }));
    }

    #[test]
    fn the_hall_remembers_the_last_lines() {
        let mut hall = Hall::default();
        let id = hall.enter("ada").unwrap().id;
        for n in 0..LINES + 2 {
            hall.say(id, &format!("line {n}")).unwrap();
        }
        assert_eq!(hall.lines().count(), LINES);
        assert_eq!(hall.lines().next().unwrap().text, "line 2");
    }

    #[test]
    fn who_is_not_here_can_do_nothing() {
        let mut hall = Hall::default();
        let id = hall.enter("ada").unwrap().id;
        hall.leave(id).unwrap();
        let gone = HallError::NoSuchPlayer(id);
        assert_eq!(hall.walk(id, 1, 0), Err(gone.clone()));
        assert_eq!(hall.say(id, "hello"), Err(gone.clone()));
        assert_eq!(hall.leave(id), Err(gone));
    }

    #[test]
    fn names_and_lines_have_limits() {
        let mut hall = Hall::default();
        assert_eq!(hall.enter(""), Err(HallError::BadName));
        assert_eq!(hall.enter(&"x".repeat(MAX_NAME + 1)), Err(HallError::BadName));
        let id = hall.enter("ada").unwrap().id;
        assert_eq!(hall.say(id, ""), Err(HallError::BadLine));
        assert_eq!(hall.say(id, &"x".repeat(MAX_LINE + 1)), Err(HallError::BadLine));
    }
}
