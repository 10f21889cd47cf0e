pragma journal_mode = wal;
create table person (id integer primary key, name text, town integer);
create table town (id integer primary key, name text);
insert into town with recursive n(i) as (select 1 union all select i + 1 from n where i < 200)
    select i, 'town ' || (i * 37 % 200) from n;
insert into person with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
    select i, printf('name %05d', i * 7919 % 60000), i * 31 % 200 + 1 from n;
create index person_town on person (town, name);
create index person_name on person (name);
select count(*), sum(length(name)) from person where name like '%77%';
select t.name, count(*), min(p.name) from person p join town t on t.id = p.town
    group by t.id order by 2 desc, 1 limit 5;
update person set town = town % 50 + 1 where id % 3 = 0;
delete from person where id % 7 = 0;
select count(distinct town), max(name) from person;
select sum(a.id * b.town) from person a join person b on b.name = a.name where a.id < 20000;
with recursive f(n, a, b) as (select 1, 0, 1 union all select n + 1, b, (a + b) % 1000007 from f where n < 50000)
    select max(a), sum(b) from f;
vacuum;
pragma integrity_check;
