package shop;

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

/**
 * A Java service that keeps search in step: the row and its task commit together, or neither does.
 *
 * <pre>SHOP_JDBC_URL=jdbc:postgresql://db1/shop?user=shop java shop.Shop shop_listings 100</pre>
 */
public final class Shop {
    private static final String ENQUEUE = "SELECT opensearch_indexing_enqueue(?, ?, ?)";

    private final Connection db;
    private final String index;

    private Shop(Connection db, String index) throws SQLException {
        this.db = db;
        this.index = index;
        db.setAutoCommit(false);
    }

    /** Writes a listing and enqueues its document, in one transaction. */
    private long create(String title, BigDecimal price) throws SQLException {
        long id;
        try (PreparedStatement insert = db.prepareStatement("INSERT INTO listings (title, price) VALUES (?, ?) RETURNING id")) {
            insert.setString(1, title);
            insert.setBigDecimal(2, price);
            try (ResultSet row = insert.executeQuery()) {
                row.next();
                id = row.getLong(1);
            }
        }
        enqueue(id, "index");
        db.commit();
        return id;
    }

    /** Changes many listings and enqueues their documents, in one statement. */
    private void reprice(int factor) throws SQLException {
        String change = "WITH changed AS (UPDATE listings SET price = price * ? RETURNING id)"
            + " SELECT opensearch_indexing_enqueue(?, id::text) FROM changed";
        try (PreparedStatement statement = db.prepareStatement(change)) {
            statement.setInt(1, factor);
            statement.setString(2, index);
            statement.execute();
        }
        db.commit();
    }

    /** Deletes a listing; if the seller changes their mind, neither row nor task is touched. */
    private void withdraw(long id, boolean sure) throws SQLException {
        try (PreparedStatement delete = db.prepareStatement("DELETE FROM listings WHERE id = ?")) {
            delete.setLong(1, id);
            delete.executeUpdate();
        }
        enqueue(id, "delete");
        if (sure) {
            db.commit();
        } else {
            db.rollback();
        }
    }

    private void enqueue(long id, String action) throws SQLException {
        try (PreparedStatement enqueue = db.prepareStatement(ENQUEUE)) {
            enqueue.setString(1, index);
            enqueue.setString(2, Long.toString(id));
            enqueue.setString(3, action);
            enqueue.execute();
        }
    }

    public static void main(String[] arguments) throws SQLException {
        try (Connection db = DriverManager.getConnection(System.getenv("SHOP_JDBC_URL"))) {
            Shop shop = new Shop(db, arguments[0]);
            long last = 0;
            for (int number = 1; number <= Integer.parseInt(arguments[1]); number++) {
                last = shop.create("lamp " + number, BigDecimal.valueOf(number));
            }
            shop.reprice(2);
            shop.withdraw(last, true);
            shop.withdraw(last - 1, false);
        }
    }
}
