CREATE DATABASE IF NOT EXISTS weather;
CREATE TABLE IF NOT EXISTS weather.air (temp DOUBLE, dewp DOUBLE, humid DOUBLE, wind_dir DOUBLE, wind_speed DOUBLE, wind_gust DOUBLE, precip DOUBLE, pressure DOUBLE, visib DOUBLE, TAGS(origin));
\copy weather.air (time, origin, temp, dewp, humid, wind_dir, wind_speed, wind_gust, precip, pressure, visib) FROM 'docs/guide/data/nyc_weather.csv' WITH (FORMAT csv, HEADER)
