# Joins of every kind, with USING and NATURAL, and what their names mean.
create table a (id int primary key, x text)
----
CREATE TABLE

create table b (id int primary key, a_id int, y text)
----
CREATE TABLE

insert into a values (1,'a1'),(2,'a2'),(3,'a3')
----
INSERT 0 3

insert into b values (10,1,'b10'),(11,1,'b11'),(12,3,'b12'),(13,null,'b13'),(14,9,'b14')
----
INSERT 0 5

select a.id, b.id from a join b on a.id = b.a_id order by 1, 2
----
1|10
1|11
3|12
SELECT 3

select a.id, b.id from a left join b on a.id = b.a_id order by 1, 2
----
1|10
1|11
2|NULL
3|12
SELECT 4

select a.id, b.id from a right join b on a.id = b.a_id order by 2
----
1|10
1|11
3|12
NULL|13
NULL|14
SELECT 5

select a.id, b.id from a full join b on a.id = b.a_id order by 1, 2
----
1|10
1|11
2|NULL
3|12
NULL|13
NULL|14
SELECT 6

select a.id, b.id from a left join b on a.id = b.a_id and b.id > 10 order by 1, 2
----
1|11
2|NULL
3|12
SELECT 3

select a.id, b.id from a left join b on a.id = b.a_id where b.id is null order by 1
----
2|NULL
SELECT 1

select count(*) from a cross join b
----
15
SELECT 1

select count(*) from a, b where a.id < b.id
----
15
SELECT 1

select * from a join b using (id)
----
SELECT 0

select * from a natural join (values (1,'n'),(2,'m')) n(id, z) order by id
----
1|a1|n
2|a2|m
SELECT 2

select id from a join b on true
----
ERROR 42702: column reference "id" is ambiguous (at 8)

select a.* from a join a b on a.id = b.id + 1 order by 1
----
2|a2
3|a3
SELECT 2

select z.id from a
----
ERROR 42P01: missing FROM-clause entry for table "z" (at 8)

select a.nope from a
----
ERROR 42703: column a.nope does not exist (at 8)

select x.id from a x, a x
----
ERROR 42712: table name "x" specified more than once

select a.id from a x
----
ERROR 42P01: invalid reference to FROM-clause entry for table "a" (at 8)

select l.id, r.id from (a l join b r on l.id = r.a_id) order by 1, 2
----
1|10
1|11
3|12
SELECT 3

select a.id, s.n from a left join (select a_id, count(*) as n from b group by a_id) s on s.a_id = a.id order by 1
----
1|2
2|NULL
3|1
SELECT 3

select a.id, l.y from a, lateral (select y from b where b.a_id = a.id order by y desc limit 1) l order by 1
----
1|b11
3|b12
SELECT 2

select a.id, g from a, generate_series(1, a.id) g order by 1, 2
----
1|1
2|1
2|2
3|1
3|2
3|3
SELECT 6

select a.id, l.y from a left join lateral (select y from b where b.a_id = a.id) l on true order by 1, 2
----
1|b10
1|b11
2|NULL
3|b12
SELECT 4

select a1.id, a2.id, a3.id from a a1 join a a2 on a1.id = a2.id join a a3 on a3.id = a2.id where a1.id > 1 order by 1
----
2|2|2
3|3|3
SELECT 2

select a.x, b.y from a full join b using (id) order by 1, 2
----
a1|NULL
a2|NULL
a3|NULL
NULL|b10
NULL|b11
NULL|b12
NULL|b13
NULL|b14
SELECT 8

select id, x, y from a full join b using (id) order by id
----
1|a1|NULL
2|a2|NULL
3|a3|NULL
10|NULL|b10
11|NULL|b11
12|NULL|b12
13|NULL|b13
14|NULL|b14
SELECT 8

select count(*) from a where (id, x) in (select id, x from a where id < 3)
----
2
SELECT 1

select * from (select 1 as one) s, (values (2), (3)) v(two) order by 2
----
1|2
1|3
SELECT 2

select * from (select 1)
----
ERROR 42601: subquery in FROM must have an alias (at 15)

drop table a, b
----
DROP TABLE

