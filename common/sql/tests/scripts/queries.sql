# Subqueries, grouping, ordering, set operations, WITH.
create table t (k int primary key, g text, v int)
----
CREATE TABLE

insert into t select i, 'g' || (i % 3), i * 10 from generate_series(1, 9) i
----
INSERT 0 9

select g, count(*), sum(v), min(v), max(v) from t group by g order by g
----
g0|3|180|30|90
g1|3|120|10|70
g2|3|150|20|80
SELECT 3

select g, count(*) from t group by g having sum(v) > 120 order by g
----
g0|3
g2|3
SELECT 2

select g from t group by g having count(*) > 10
----
SELECT 0

select count(*), sum(v) from t where false
----
0|NULL
SELECT 1

select count(*) from t having count(*) > 100
----
SELECT 0

select g, v from t group by g
----
ERROR 42803: column "t.v" must appear in the GROUP BY clause or be used in an aggregate function (at 11)

select k, g, v from t group by k order by k limit 2
----
1|g1|10
2|g2|20
SELECT 2

select g || '!' from t group by g order by 1
----
g0!
g1!
g2!
SELECT 3

select upper(g), count(*) from t group by upper(g) order by upper(g) desc
----
G2|3
G1|3
G0|3
SELECT 3

select g as grp, count(*) as n from t group by grp order by n, grp
----
g0|3
g1|3
g2|3
SELECT 3

select count(distinct g), count(all g) from t
----
3|9
SELECT 1

select sum(v) filter (where k > 5) from t
----
300
SELECT 1

select string_agg(g, ',' order by k desc) from t where k < 4
----
g0,g2,g1
SELECT 1

select array_agg(k order by k) from t where k < 4
----
{1,2,3}
SELECT 1

select sum(count(*)) from t
----
ERROR 42803: aggregate function calls cannot be nested (at 12)

select * from t where count(*) > 1
----
ERROR 42803: aggregate functions are not allowed in WHERE (at 23)

select k from t order by v desc limit 3
----
9
8
7
SELECT 3

select k from t order by v desc limit 3 offset 2
----
7
6
5
SELECT 3

select k from t order by g, k desc limit 4
----
9
6
3
7
SELECT 4

select k from t order by k limit 0
----
SELECT 0

select k from t order by k offset 8
----
9
SELECT 1

select k from t limit -1
----
ERROR 2201W: LIMIT must not be negative

select k from t order by 2
----
ERROR 42P10: ORDER BY position 2 is not in select list (at 26)

select k as a, v as a from t order by a
----
ERROR 42702: ORDER BY "a" is ambiguous (at 39)

select k from t order by nope
----
ERROR 42703: column "nope" does not exist (at 26)

select distinct g from t order by g
----
g0
g1
g2
SELECT 3

select distinct g from t order by k
----
ERROR 42P10: for SELECT DISTINCT, ORDER BY expressions must appear in select list (at 35)

select distinct on (g) g, k from t order by g, k desc
----
g0|9
g1|7
g2|8
SELECT 3

select k, (select max(v) from t u where u.g = t.g) from t where k < 4 order by k
----
1|70
2|80
3|90
SELECT 3

select k from t where v = (select max(v) from t)
----
9
SELECT 1

select k from t where v = (select v from t)
----
ERROR 21000: more than one row returned by a subquery used as an expression

select k from t where exists (select 1 from t u where u.k = t.k + 8)
----
1
SELECT 1

select k from t where not exists (select 1 from t u where u.k > t.k)
----
9
SELECT 1

select k from t where k in (1, 3, null) order by k
----
1
3
SELECT 2

select k from t where k not in (1, 3, null)
----
SELECT 0

select k from t where k in (select k + 1 from t where k > 7)
----
9
SELECT 1

select k from t where k not in (select k from t where k > 2) order by k
----
1
2
SELECT 2

select k from t where k = any (array[2, 4]) order by k
----
2
4
SELECT 2

select k from t where v > all (select v from t where k < 8) order by k
----
8
9
SELECT 2

select array(select k from t where k < 4 order by k)
----
{1,2,3}
SELECT 1

select 1 where 1 in (select 1, 2)
----
ERROR 42601: subquery has too many columns (at 18)

select (select k, v from t)
----
ERROR 42601: subquery must return only one column (at 8)

select k from t where k between 3 and 5 order by k
----
3
4
5
SELECT 3

select k, case when k < 3 then 'low' when k < 6 then 'mid' else 'high' end from t where k in (1, 4, 9) order by k
----
1|low
4|mid
9|high
SELECT 3

select 1 union select 2 union all select 2 order by 1
----
1
2
2
SELECT 3

select 1 union select 1
----
1
SELECT 1

select k from t where k < 4 intersect select k from t where k > 2
----
3
SELECT 1

select k from t where k < 4 except select 2 order by 1
----
1
3
SELECT 2

select 1, 2 union select 1
----
ERROR 42601: each UNION query must have the same number of columns (at 26)

select 1 union select 'a'
----
ERROR 22P02: invalid input syntax for type integer: "a" (at 23)

select 1 union select null order by 1
----
1
NULL
SELECT 2

select 1 as a union select 2 order by a desc limit 1
----
2
SELECT 1

select 1 as a union select 2 order by a + 1
----
ERROR 0A000: invalid UNION/INTERSECT/EXCEPT ORDER BY clause (at 39)

(select k from t order by k limit 1) union all (select k from t order by k desc limit 1)
----
1
9
SELECT 2

values (1, 'a'), (2, 'b') order by 1 desc
----
2|b
1|a
SELECT 2

values (1), (2, 3)
----
ERROR 42601: VALUES lists must all be the same length (at 14)

with a as (select k from t where k < 3), b as (select k + 100 as k from a) select * from a union all select * from b order by 1
----
1
2
101
102
SELECT 4

with a(x) as (select 1) select x from a
----
1
SELECT 1

with a as (select 1) select * from b
----
ERROR 42P01: relation "b" does not exist (at 36)

with recursive a as (select 1) select * from a
----
1
SELECT 1

select * from generate_series(1, 10, 3)
----
1
4
7
10
SELECT 4

select * from generate_series(1, 2) with ordinality as g(n, o)
----
1|1
2|2
SELECT 2

select generate_series(1, 3) as g, 'x'
----
1|x
2|x
3|x
SELECT 3

select k, generate_series(1, 2) from t where k = 1
----
1|1
1|2
SELECT 2

select t from t where k = 1
----
(1,g1,10)
SELECT 1

select t.* from t where k = 1
----
1|g1|10
SELECT 1

select 1 as from
----
1
SELECT 1

select a.b.c.d.e.f from t
----
ERROR 42601: improper qualified name (too many dotted names): a.b.c.d.e.f (at 8)

table t limit 1
----
1|g1|10
SELECT 1

select k from t where g ~ '^g[12]$' and g like 'g%' and g <> 'g2' order by k
----
1
4
7
SELECT 3

select current_user, current_database(), session_user
----
postgres|postgres|postgres
SELECT 1

select $1
----
ERROR 42P02: there is no parameter $1 (at 8)

select coalesce(null, null, 3), nullif(1, 1), greatest(1, 5, 2), least(3, null, 2)
----
3|NULL|5|2
SELECT 1

select 'a' 'b'
----
ERROR 42601: syntax error at or near "'b'" (at 12)

select 1 = 1 = 1
----
ERROR 42601: syntax error at or near "=" (at 14)

select not true or true, not (true and false)
----
t|t
SELECT 1

select 2 + 3 * 4 - -1, 2 ^ 3 ^ 2, -2 ^ 2
----
15|64|4
SELECT 1

select row(1, 2) = row(1, 2), (1, 2) < (1, 3), (1, null) = (1, 2)
----
t|t|NULL
SELECT 1

select nope(1)
----
ERROR 42883: function nope(integer) does not exist (at 8)

select upper(1, 2)
----
ERROR 42883: function upper(integer, integer) does not exist (at 8)

select 1 + 'a'
----
ERROR 22P02: invalid input syntax for type integer: "a" (at 12)

select 'a' + 1::text
----
ERROR 42883: operator does not exist: unknown + text (at 12)

select 1 from t where k
----
ERROR 42804: argument of WHERE must be type boolean, not type integer (at 23)

select 1 limit 'x'
----
ERROR 22P02: invalid input syntax for type bigint: "x" (at 16)

drop table t
----
DROP TABLE

