//! Rows of pg_proc: the built-in functions that clients look up, with PostgreSQL 15's OIDs and signatures.

use towline_base::Oid;
use towline_types::Datum;

use crate::catalog::rows::RowBuilder;
use crate::catalog::{BOOTSTRAP_SUPERUSER, PG_CATALOG};

/// The rows.
pub(super) fn rows() -> Vec<Vec<Datum>> {
    FUNCTIONS.lines().filter_map(row).collect()
}

/// Takes a line apart: `oid name result flags arguments…`, types as OIDs, the flags being prokind, provolatile, proisstrict
/// and proretset.
fn row(line: &str) -> Option<Vec<Datum>> {
    let mut words = line.split_ascii_whitespace();
    let oid: u32 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let result: u32 = words.next()?.parse().ok()?;
    let flags = words.next()?.as_bytes();
    let &[kind, volatility, strict, set] = flags else {
        return None;
    };
    let arguments: Vec<u32> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(
        RowBuilder::new("pg_proc")
            .oid("oid", Oid(oid))
            .text("proname", name)
            .oid("pronamespace", PG_CATALOG)
            .oid("proowner", BOOTSTRAP_SUPERUSER)
            .oid("prolang", Oid(12))
            .set("procost", Datum::Float4(1.0))
            .set("prorows", Datum::Float4(if set == b't' { 1000.0 } else { 0.0 }))
            .letter("prokind", kind)
            .flag("proisstrict", strict == b't')
            .flag("proretset", set == b't')
            .letter("provolatile", volatility)
            .letter("proparallel", b's')
            .int2("pronargs", arguments.len() as i16)
            .oid("prorettype", Oid(result))
            .set("proargtypes", Datum::OidVector(arguments.into()))
            .text("prosrc", name)
            .finish(),
    )
}

/// One function on each line.
const FUNCTIONS: &str = "\
1394 abs 700 fitf 700
1395 abs 701 fitf 701
1396 abs 20 fitf 20
1397 abs 23 fitf 23
1398 abs 21 fitf 21
1705 abs 1700 fitf 1700
1601 acos 701 fitf 701
2466 acosh 701 fitf 701
1181 age 23 fstf 28
1199 age 1186 fitf 1184 1184
1386 age 1186 fstf 1184
2058 age 1186 fitf 1114 1114
2059 age 1186 fstf 1114
1193 array_fill 2277 fiff 2283 1007
1286 array_fill 2277 fiff 2283 1007 1007
2176 array_length 23 fitf 2277 23
2091 array_lower 23 fitf 2277 23
748 array_ndims 23 fitf 2277
751 array_out 2275 fstf 2277
384 array_to_string 25 fsff 2277 25 25
395 array_to_string 25 fstf 2277 25
2092 array_upper 23 fitf 2277 23
1620 ascii 23 fitf 25
1600 asin 701 fitf 701
2465 asinh 701 fitf 701
1602 atan 701 fitf 701
1603 atan2 701 fitf 701 701
2467 atanh 701 fitf 701
1810 bit_length 23 fitf 17
1811 bit_length 23 fitf 25
60 booleq 16 fitf 16 16
884 btrim 25 fitf 25 25
885 btrim 25 fitf 25
2015 btrim 17 fitf 17 17
3179 cardinality 23 fitf 2277
1345 cbrt 701 fitf 701
1711 ceil 1700 fitf 1700
2308 ceil 701 fitf 701
2167 ceiling 1700 fitf 1700
2320 ceiling 701 fitf 701
1372 char_length 23 fitf 1042
1381 char_length 23 fitf 25
1367 character_length 23 fitf 1042
1369 character_length 23 fitf 25
1621 chr 25 fitf 23
2649 clock_timestamp 1184 fvtf
1216 col_description 25 fstf 26 23
1714 convert_from 25 fstf 17 19
1717 convert_to 17 fstf 25 19
1605 cos 701 fitf 701
2463 cosh 701 fitf 701
1607 cot 701 fitf 701
861 current_database 19 fstf
1402 current_schema 19 fstf
1403 current_schemas 1003 fstf 16
2077 current_setting 25 fstf 25
3294 current_setting 25 fstf 25 16
745 current_user 19 fstf
6177 date_bin 1114 fitf 1186 1114 1114
6178 date_bin 1184 fitf 1186 1184 1184
1171 date_part 701 fstf 25 1184
1172 date_part 701 fitf 25 1186
1384 date_part 701 fitf 25 1082
1385 date_part 701 fitf 25 1083
2021 date_part 701 fitf 25 1114
1217 date_trunc 1184 fstf 25 1184
1218 date_trunc 1186 fitf 25 1186
1284 date_trunc 1184 fstf 25 1184 25
2020 date_trunc 1114 fitf 25 1114
1947 decode 17 fitf 25 25
1608 degrees 701 fitf 701
1973 div 1700 fitf 1700 1700
1946 encode 25 fitf 17 25
1347 exp 701 fitf 701
1732 exp 1700 fitf 1700
6199 extract 1700 fitf 25 1082
6200 extract 1700 fitf 25 1083
6202 extract 1700 fitf 25 1114
6203 extract 1700 fstf 25 1184
6204 extract 1700 fitf 25 1186
1376 factorial 1700 fitf 20
1712 floor 1700 fitf 1700
2309 floor 701 fitf 701
3540 format 25 fsff 25
1081 format_type 25 fsff 26 23
5044 gcd 23 fitf 23 23
5045 gcd 20 fitf 20 20
5048 gcd 1700 fitf 1700 1700
938 generate_series 1114 fitt 1114 1114 1186
939 generate_series 1184 fstt 1184 1184 1186
1066 generate_series 23 fitt 23 23 23
1067 generate_series 23 fitt 23 23
1068 generate_series 20 fitt 20 20 20
1069 generate_series 20 fitt 20 20
3259 generate_series 1700 fitt 1700 1700 1700
3260 generate_series 1700 fitt 1700 1700
1191 generate_subscripts 23 fitt 2277 23 16
1192 generate_subscripts 23 fitt 2277 23
721 get_byte 23 fitf 17 23
1039 getdatabaseencoding 19 fstf
2196 inet_client_addr 869 fsff
2197 inet_client_port 23 fsff
2198 inet_server_addr 869 fsff
2199 inet_server_port 23 fsff
872 initcap 25 fitf 25
1373 isfinite 16 fitf 1082
1389 isfinite 16 fitf 1184
1390 isfinite 16 fitf 1186
2048 isfinite 16 fitf 1114
1295 justify_days 1186 fitf 1186
1175 justify_hours 1186 fitf 1186
2711 justify_interval 1186 fitf 1186
5046 lcm 23 fitf 23 23
5047 lcm 20 fitf 20 20
5049 lcm 1700 fitf 1700 1700
3060 left 25 fitf 25 23
1317 length 23 fitf 25
1318 length 23 fitf 1042
1713 length 23 fstf 17 19
2010 length 23 fitf 17
1569 like 16 fitf 25 25
1571 like 16 fitf 19 25
2007 like 16 fitf 17 17
1637 like_escape 25 fitf 25 25
2009 like_escape 17 fitf 17 17
1341 ln 701 fitf 701
1734 ln 1700 fitf 1700
1340 log 701 fitf 701
1736 log 1700 fitf 1700 1700
1741 log 1700 fitf 1700
1194 log10 701 fitf 701
1481 log10 1700 fitf 1700
870 lower 25 fitf 25
873 lpad 25 fitf 25 23 25
879 lpad 25 fitf 25 23
875 ltrim 25 fitf 25 25
881 ltrim 25 fitf 25
6195 ltrim 17 fitf 17 17
3846 make_date 1082 fitf 23 23 23
3464 make_interval 1186 fitf 23 23 23 23 23 23 701
3847 make_time 1083 fitf 23 23 701
3461 make_timestamp 1114 fitf 23 23 23 23 23 701
3462 make_timestamptz 1184 fstf 23 23 23 23 23 701
3463 make_timestamptz 1184 fstf 23 23 23 23 23 701 25
2311 md5 25 fitf 25
2321 md5 25 fitf 17
5042 min_scale 23 fitf 1700
940 mod 21 fitf 21 21
941 mod 23 fitf 23 23
947 mod 20 fitf 20 20
1728 mod 1700 fitf 1700 1700
1570 notlike 16 fitf 25 25
1572 notlike 16 fitf 19 25
2008 notlike 16 fitf 17 17
1299 now 1184 fstf
1215 obj_description 25 fstf 26 19
1348 obj_description 25 fstf 26
720 octet_length 23 fitf 17
1374 octet_length 23 fitf 25
1375 octet_length 23 fitf 1042
1304 overlaps 16 fiff 1184 1184 1184 1184
1305 overlaps 16 fsff 1184 1186 1184 1186
1306 overlaps 16 fsff 1184 1184 1184 1186
1307 overlaps 16 fsff 1184 1186 1184 1184
1308 overlaps 16 fiff 1083 1083 1083 1083
1309 overlaps 16 fiff 1083 1186 1083 1186
1310 overlaps 16 fiff 1083 1083 1083 1186
1311 overlaps 16 fiff 1083 1186 1083 1083
2041 overlaps 16 fiff 1114 1114 1114 1114
2042 overlaps 16 fiff 1114 1186 1114 1186
2043 overlaps 16 fiff 1114 1114 1114 1186
2044 overlaps 16 fiff 1114 1186 1114 1114
749 overlay 17 fitf 17 17 23 23
752 overlay 17 fitf 17 17 23
1404 overlay 25 fitf 25 25 23 23
1405 overlay 25 fitf 25 25 23
2026 pg_backend_pid 23 fstf
1264 pg_char_to_encoding 23 fstf 19
810 pg_client_encoding 19 fstf
1269 pg_column_size 23 fstf 2276
2034 pg_conf_load_time 1184 fstf
2168 pg_database_size 20 fvtf 19
2324 pg_database_size 20 fvtf 26
1597 pg_encoding_to_char 19 fstf 23
1387 pg_get_constraintdef 25 fstf 26
2508 pg_get_constraintdef 25 fstf 26 16
1716 pg_get_expr 25 fstf 194 26
2509 pg_get_expr 25 fstf 194 26 16
1643 pg_get_indexdef 25 fstf 26
2507 pg_get_indexdef 25 fstf 26 23 16
1573 pg_get_ruledef 25 fstf 26
2504 pg_get_ruledef 25 fstf 26 16
1662 pg_get_triggerdef 25 fstf 26
2730 pg_get_triggerdef 25 fstf 26 16
1642 pg_get_userbyid 19 fstf 26
1640 pg_get_viewdef 25 fstf 25
1641 pg_get_viewdef 25 fstf 26
2505 pg_get_viewdef 25 fstf 25 16
2506 pg_get_viewdef 25 fstf 26 16
3159 pg_get_viewdef 25 fstf 26 23
636 pg_indexam_has_property 16 fstf 26 25
2998 pg_indexes_size 20 fvtf 2205
3810 pg_is_in_recovery 16 fvtf
2855 pg_is_other_temp_schema 16 fstf 26
315 pg_jit_available 16 fvtf
3830 pg_last_xact_replay_timestamp 1184 fvtf
2854 pg_my_temp_schema 26 fstf
2560 pg_postmaster_start_time 1184 fstf
2999 pg_relation_filenode 26 fstf 2205
3034 pg_relation_filepath 25 fstf 2205
6121 pg_relation_is_publishable 16 fstf 2205
3842 pg_relation_is_updatable 23 fstf 2205 16
2325 pg_relation_size 20 fvtf 2205
2332 pg_relation_size 20 fvtf 2205 25
3334 pg_size_bytes 20 fitf 25
2288 pg_size_pretty 25 fitf 20
3166 pg_size_pretty 25 fitf 1700
2626 pg_sleep 2278 fvtf 701
3935 pg_sleep_for 2278 fvtf 1186
1937 pg_stat_get_backend_pid 23 fstf 23
1928 pg_stat_get_numscans 20 fstf 26
2997 pg_table_size 20 fvtf 2205
2322 pg_tablespace_size 20 fvtf 26
2323 pg_tablespace_size 20 fvtf 19
2286 pg_total_relation_size 20 fvtf 2205
3165 pg_wal_lsn_diff 1700 fitf 3220 3220
2851 pg_walfile_name 25 fitf 3220
1610 pi 701 fitf
849 position 23 fitf 25 25
2014 position 23 fitf 17 17
1346 pow 701 fitf 701 701
1738 pow 1700 fitf 1700 1700
1368 power 701 fitf 701 701
2169 power 1700 fitf 1700 1700
1282 quote_ident 25 fitf 25
1283 quote_literal 25 fitf 25
1285 quote_literal 25 fstf 2283
1289 quote_nullable 25 fiff 25
1290 quote_nullable 25 fsff 2283
1609 radians 701 fitf 701
1598 random 701 fvtf
6254 regexp_count 23 fitf 25 25
6255 regexp_count 23 fitf 25 25 23
6256 regexp_count 23 fitf 25 25 23 25
6257 regexp_instr 23 fitf 25 25
6258 regexp_instr 23 fitf 25 25 23
6259 regexp_instr 23 fitf 25 25 23 23
6260 regexp_instr 23 fitf 25 25 23 23 23
6261 regexp_instr 23 fitf 25 25 23 23 23 25
6262 regexp_instr 23 fitf 25 25 23 23 23 25 23
6263 regexp_like 16 fitf 25 25
6264 regexp_like 16 fitf 25 25 25
3396 regexp_match 1009 fitf 25 25
3397 regexp_match 1009 fitf 25 25 25
2284 regexp_replace 25 fitf 25 25 25
2285 regexp_replace 25 fitf 25 25 25 25
6251 regexp_replace 25 fitf 25 25 25 23 23 25
6252 regexp_replace 25 fitf 25 25 25 23 23
6253 regexp_replace 25 fitf 25 25 25 23
2767 regexp_split_to_array 1009 fitf 25 25
2768 regexp_split_to_array 1009 fitf 25 25 25
2765 regexp_split_to_table 25 fitt 25 25
2766 regexp_split_to_table 25 fitt 25 25 25
6265 regexp_substr 25 fitf 25 25
6266 regexp_substr 25 fitf 25 25 23
6267 regexp_substr 25 fitf 25 25 23 23
6268 regexp_substr 25 fitf 25 25 23 23 25
6269 regexp_substr 25 fitf 25 25 23 23 25 23
1622 repeat 25 fitf 25 23
2087 replace 25 fitf 25 25 25
3062 reverse 25 fitf 25
3061 right 25 fitf 25 23
1342 round 701 fitf 701
1707 round 1700 fitf 1700 23
1708 round 1700 fitf 1700
3298 row_security_active 16 fstf 26
3299 row_security_active 16 fstf 25
874 rpad 25 fitf 25 23 25
880 rpad 25 fitf 25 23
876 rtrim 25 fitf 25 25
882 rtrim 25 fitf 25
6196 rtrim 17 fitf 17 17
3281 scale 23 fitf 1700
746 session_user 19 fstf
2078 set_config 25 fvff 25 25 16
1599 setseed 2278 fvtf 701
1993 shobj_description 25 fstf 26 19
1706 sign 1700 fitf 1700
2310 sign 701 fitf 701
1604 sin 701 fitf 701
2462 sinh 701 fitf 701
2088 split_part 25 fitf 25 25 23
1344 sqrt 701 fitf 701
1730 sqrt 1700 fitf 1700
3696 starts_with 16 fitf 25 25
2648 statement_timestamp 1184 fstf
376 string_to_array 1009 fiff 25 25 25
394 string_to_array 1009 fiff 25 25
868 strpos 23 fitf 25 25
877 substr 25 fitf 25 23 23
883 substr 25 fitf 25 23
2085 substr 17 fitf 17 23 23
2086 substr 17 fitf 17 23
936 substring 25 fitf 25 23 23
937 substring 25 fitf 25 23
2012 substring 17 fitf 17 23 23
2013 substring 17 fitf 17 23
2073 substring 25 fitf 25 25
2074 substring 25 fitf 25 25 25
1606 tan 701 fitf 701
2464 tanh 701 fitf 701
274 timeofday 25 fvtf
1026 timezone 1114 fitf 1186 1184
1159 timezone 1114 fitf 25 1184
2069 timezone 1184 fitf 25 1114
2070 timezone 1184 fitf 1186 1114
1768 to_char 25 fstf 1186 25
1770 to_char 25 fstf 1184 25
1772 to_char 25 fstf 1700 25
1773 to_char 25 fstf 23 25
1774 to_char 25 fstf 20 25
1775 to_char 25 fstf 700 25
1776 to_char 25 fstf 701 25
2049 to_char 25 fstf 1114 25
2089 to_hex 25 fitf 23
2090 to_hex 25 fitf 20
3495 to_regclass 2205 fstf 25
4086 to_regnamespace 4089 fstf 25
3494 to_regproc 24 fstf 25
4093 to_regrole 4096 fstf 25
3493 to_regtype 2206 fstf 25
1158 to_timestamp 1184 fitf 701
1778 to_timestamp 1184 fstf 25 25
2647 transaction_timestamp 1184 fstf
878 translate 25 fitf 25 25 25
6172 trim_array 2277 fitf 2277 23
5043 trim_scale 1700 fitf 1700
1343 trunc 701 fitf 701
1709 trunc 1700 fitf 1700 23
1710 trunc 1700 fitf 1700
2943 txid_current 20 fstf
3348 txid_current_if_assigned 20 fstf
2331 unnest 2283 fitt 2277
871 upper 25 fitf 25
89 version 25 fstf
320 width_bucket 23 fitf 701 701 701 23
2170 width_bucket 23 fitf 1700 1700 1700 23
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_function() {
        assert_eq!(rows().len(), FUNCTIONS.lines().count());
    }
}
