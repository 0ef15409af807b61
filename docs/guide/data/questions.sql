-- How much was measured where, and how cold and how hot did it get?
SELECT origin, count(*) AS hours, min(temp) AS coldest, max(temp) AS hottest FROM weather.air GROUP BY origin ORDER BY origin;
-- What was the weather in each month at JFK?
SELECT date_trunc('month', time) AS month, round(avg(temp)::numeric(20,6), 2) AS temp, round(sum(precip)::numeric(20,6), 2) AS rain FROM weather.air WHERE origin = 'JFK' AND time >= '2013-01-01' AND time < '2014-01-01' GROUP BY 1 ORDER BY 1;
-- When did the wind blow hardest?
SELECT time, origin, round(wind_gust::numeric(20,6), 2) AS gust FROM weather.air WHERE wind_gust IS NOT NULL ORDER BY wind_gust DESC, time, origin LIMIT 3;
