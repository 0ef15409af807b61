// pgjdbc: prepared statements, batches, a time both ways.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;

public class JdbcClient {
    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(arguments[0])) {
            try (Statement statement = connection.createStatement()) {
                statement.execute("CREATE TABLE j (v DOUBLE, n BIGINT, TAGS(host))");
            }
            OffsetDateTime moment = OffsetDateTime.of(2024, 5, 1, 12, 30, 15, 123456000, ZoneOffset.UTC);
            String insert = "INSERT INTO j (time, host, v, n) VALUES (?, ?, ?, ?)";
            try (PreparedStatement statement = connection.prepareStatement(insert)) {
                for (int i = 0; i < 50; i++) {
                    statement.setObject(1, moment.plusSeconds(i));
                    statement.setString(2, "h" + i % 2);
                    statement.setDouble(3, i / 2.0);
                    statement.setLong(4, i);
                    statement.addBatch();
                }
                statement.executeBatch();
            }
            String query = "SELECT time, v, n FROM j WHERE host = ? AND n >= ? ORDER BY time";
            try (PreparedStatement statement = connection.prepareStatement(query)) {
                // Often enough that the driver turns to named statements and binary results.
                for (int round = 0; round < 8; round++) {
                    statement.setString(1, "h1");
                    statement.setLong(2, 47);
                    try (ResultSet rows = statement.executeQuery()) {
                        check(rows.next() && rows.getLong(3) == 47 && rows.getDouble(2) == 23.5, "first row");
                        check(rows.getObject(1, OffsetDateTime.class).isEqual(moment.plusSeconds(47)), "time");
                        check(rows.next() && rows.getLong("n") == 49 && !rows.next(), "last row");
                    }
                }
            }
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(7);
                int count = 0;
                try (ResultSet rows = statement.executeQuery("SELECT n FROM j")) {
                    while (rows.next()) {
                        count++;
                    }
                }
                check(count == 50, "rows by portions: " + count);
            }
            connection.commit();
            try (Statement statement = connection.createStatement()) {
                statement.executeQuery("SELECT * FROM nowhere");
                throw new AssertionError("an unknown table is an error");
            } catch (SQLException error) {
                check(error.getSQLState().equals("42P01"), error.toString());
            }
            connection.rollback();
        }
        System.out.println("ok");
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
