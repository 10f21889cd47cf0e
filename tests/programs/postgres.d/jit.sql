-- Expressions, aggregates, joins and deforming of tuples, compiled.
create table t as select i, i % 17 as k, i * 1.5 as n, (i * 0.37)::float8 as f, 'row' || i as s,
    case when i % 5 = 0 then null else i * 3 end as maybe, date '2020-01-01' + i % 400 as d
    from generate_series(1, 5000) i;
analyze t;
select k, count(*), sum(i), sum(n), avg(f), min(s), max(d), count(maybe), sum(maybe) from t group by k order by k;
select count(*) from t where i between 100 and 3000 and f * 2 + sqrt(i) > 900 and s like '%7%' and coalesce(maybe, 1) % 2 = 1;
select a.k, count(*), sum(a.f * b.f)::numeric(20, 4) from t a join t b on a.i = b.i + 17 where a.n < b.n + 1000 group by a.k having count(*) > 10 order by 1;
select i, f, rank() over (partition by k order by f desc), lag(i, 2) over (order by i), sum(n) over (order by i rows 5 preceding) from t where i % 500 < 3 order by i;
select case when i % 3 = 0 then 'three' when i % 5 = 0 then 'five' else s end, i::text || '/' || d::text, (i > 10) is distinct from (maybe > 40), array[i, k, maybe], greatest(i, maybe, 7), i / 7, i % 7, -i, i # 5, i << 3, f::int, n::int8 from t where i < 40 order by i;
select md5(string_agg(x, ',' order by i)) from (select i, (exp(f / 3000) + ln(i) + sin(f) + power(n, 0.3))::text x from t) q;
select i / (i - 3) from t where i < 5 order by i;
select 2147483647 + k::int4 from t where k = 1 limit 1;
with recursive r(a, b) as (select 0::numeric, 1::numeric union all select b, a + b from r where b < 10::numeric ^ 60) select max(b), count(*) from r;
prepare p(int, text) as select count(*), max(s) from t where k = $1 and s > $2;
execute p(3, 'row2'); execute p(4, 'row3'); execute p(5, 'row');
explain (analyze, costs off, timing off, summary off, buffers off) select sum(f) from t where k > 5;
select i, s from t where s ~ '^row[13]+$' order by s collate "C" desc;
