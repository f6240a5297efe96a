//! The control file under torn writes and arbitrary bytes.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use towline_base::{Incarnation, Lsn, OsVfs, SystemId, TimelineId, TimelineNumber, Xid};

fn sample() -> ControlData {
    let timeline = TimelineId {
        number: TimelineNumber(3),
        incarnation: Incarnation([7; 16]),
    };
    let mut data = ControlData::new(SystemId(42), timeline, 16 << 20, true);
    data.state = ClusterState::InProduction;
    data.time = 817_905_845_000_000;
    data.checkpoint.redo = Lsn(0x100_0028);
    data.checkpoint.lsn = Lsn(0x100_0100);
    data.checkpoint.end = Lsn(0x100_0178);
    data.checkpoint.next_xid = Xid(0x1_0000_0007);
    data
}

fn file_bytes(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 2 * COPY_SIZE];
    bytes[..first.len()].copy_from_slice(first);
    bytes[COPY_SIZE..COPY_SIZE + second.len()].copy_from_slice(second);
    bytes
}

#[test]
fn it_comes_back_as_written_and_prints() {
    let data = sample();
    assert_eq!(decode(&encode(&data, 9)).unwrap(), (9, data.clone()));
    let text = data.to_string();
    assert!(
        text.contains("Database cluster state:               in production\n"),
        "{text}"
    );
    assert!(
        text.contains("Latest checkpoint's REDO location:    0/1000028\n"),
        "{text}"
    );
    assert!(
        text.contains("Latest checkpoint's NextXID:          1:7\n"),
        "{text}"
    );
}

#[test]
fn updates_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("global")).unwrap();
    let control = ControlFile::create(Arc::new(OsVfs), dir.path(), sample()).unwrap();
    for round in 0..5 {
        control.update(|data| data.quorum = Lsn(round)).unwrap();
        assert_eq!(
            ControlFile::open(Arc::new(OsVfs), dir.path()).unwrap().get(),
            control.get()
        );
    }
    assert!(
        ControlFile::create(Arc::new(OsVfs), dir.path(), sample()).is_err(),
        "an existing one is not overwritten"
    );
}

#[test]
fn one_damaged_copy_is_no_loss_and_two_are_an_error_that_says_how() {
    let (old, new) = (
        sample(),
        ControlData {
            quorum: Lsn(77),
            ..sample()
        },
    );
    let (old_bytes, new_bytes) = (encode(&old, 4), encode(&new, 5));
    assert_eq!(choose(&file_bytes(&new_bytes, &old_bytes)).unwrap().1, new);
    assert_eq!(choose(&file_bytes(&old_bytes, &new_bytes)).unwrap().1, new);
    let mut torn = new_bytes.clone();
    torn[40] ^= 1;
    assert_eq!(choose(&file_bytes(&torn, &old_bytes)).unwrap().1, old);
    assert_eq!(choose(&file_bytes(&old_bytes, &torn)).unwrap().1, old);
    let error = choose(&file_bytes(&torn, &[])).unwrap_err();
    assert!(
        error.contains("first copy: invalid checksum") && error.contains("second copy: invalid magic"),
        "{error}"
    );
    let mut newer = new_bytes;
    newer[8] = 2;
    assert!(
        choose(&file_bytes(&newer, &newer))
            .unwrap_err()
            .contains("another release")
    );
    assert!(choose(&[]).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), keep_magic in any::<bool>()) {
        if keep_magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(MAGIC);
        }
        let _ = choose(&bytes);
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in 0usize..3000) {
        let mut bytes = encode(&sample(), 3);
        let at = at % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        prop_assert!(decode(&bytes).is_err());
    }
}
