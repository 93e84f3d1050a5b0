BEGIN TRANSACTION;
CREATE TABLE models (
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    role           VARCHAR(16)  NOT NULL,
    features       JSON         NOT NULL,
    seen_at        DATETIME(3)  NOT NULL,
    PRIMARY KEY (model, version)
);
INSERT INTO "models" VALUES('risk','1','champion','[{"name":"age","parameter":null,"aggregation":null,"window_hours":null,"fill":null,"required":false},{"name":"heart_rate__mean","parameter":"heart_rate","aggregation":"mean","window_hours":null,"fill":null,"required":true},{"name":"spo2__last","parameter":"spo2","aggregation":"last","window_hours":null,"fill":null,"required":false}]','2026-11-27 04:37:00.125');
INSERT INTO "models" VALUES('risk shadow','2024-05','shadow','[{"name":"age","parameter":null,"aggregation":null,"window_hours":null,"fill":null,"required":false},{"name":"heart_rate__mean","parameter":"heart_rate","aggregation":"mean","window_hours":null,"fill":null,"required":true},{"name":"spo2__last","parameter":"spo2","aggregation":"last","window_hours":null,"fill":null,"required":false}]','2026-11-27 04:37:00.125');
CREATE TABLE pending (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    PRIMARY KEY (stream, seq, model)
);
INSERT INTO "pending" VALUES('5f2c9e01',8,'risk');
INSERT INTO "pending" VALUES('5f2c9e01',10,'risk');
CREATE TABLE positions (
    stream         VARCHAR(32)  NOT NULL,
    part           INTEGER      NOT NULL,
    seq            BIGINT       NOT NULL,
    vitals_seq     BIGINT       NOT NULL,
    committed_at   DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, part)
);
INSERT INTO "positions" VALUES('5f2c9e01',0,12,12,'2026-11-27 04:37:00.125');
INSERT INTO "positions" VALUES('5f2c9e01',1,10,10,'2026-11-27 04:37:00.125');
INSERT INTO "positions" VALUES('0a0b0c0d',0,1,1,'2026-11-27 04:37:00.125');
CREATE TABLE predictions (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    model          VARCHAR(64)  NOT NULL,
    version        VARCHAR(64)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    measured_at    DATETIME     NOT NULL,
    features       JSON         NOT NULL,
    probability    DOUBLE       NULL,
    reason         VARCHAR(255) NULL,
    created_at     DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, seq, model)
);
INSERT INTO "predictions" VALUES('5f2c9e01',1,'risk','1',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',3,'risk','1',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',4,'risk','1',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',7,'risk','1',17,'2150-02-28','2150-03-01 09:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',1,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',3,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',4,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',7,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 09:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',4.13833333333333330816e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',2,'risk','1',-9007199254740993,'2150-02-28','2150-03-01 07:00:00','{"age":null,"heart_rate__mean":91.25,"spo2__last":null}',4.24583333333333312609e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',5,'risk','1',-9007199254740993,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":91.25,"spo2__last":97.0}',4.24583333333333312609e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',2,'risk shadow','2024-05',-9007199254740993,'2150-02-28','2150-03-01 07:00:00','{"age":null,"heart_rate__mean":91.25,"spo2__last":null}',4.24583333333333312609e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',5,'risk shadow','2024-05',-9007199254740993,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":91.25,"spo2__last":97.0}',4.24583333333333312609e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',8,'risk','1',17,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":40.4,"spo2__last":null}',NULL,'waiting for the model','2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',8,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":40.4,"spo2__last":null}',3.73733333333333306303e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',10,'risk','1',-9007199254740993,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":89.625,"spo2__last":97.0}',NULL,'waiting for the model','2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('5f2c9e01',10,'risk shadow','2024-05',-9007199254740993,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":89.625,"spo2__last":97.0}',4.22958333333333325043e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('0a0b0c0d',1,'risk','1',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":60.0,"spo2__last":null}',3.93333333333333312609e-01,NULL,'2026-11-27 04:37:00.125');
INSERT INTO "predictions" VALUES('0a0b0c0d',1,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":60.0,"spo2__last":null}',3.93333333333333312609e-01,NULL,'2026-11-27 04:37:00.125');
CREATE TABLE readings (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    measured_at    DATETIME     NOT NULL,
    parameter      VARCHAR(64)  NOT NULL,
    value          DOUBLE       NOT NULL,
    PRIMARY KEY (stream, seq),
    
    
    UNIQUE (pat_id, date_admission, stream, measured_at, seq)
);
INSERT INTO "readings" VALUES('5f2c9e01',1,17,'2150-02-28','2150-03-01 07:00:00','heart_rate',80.5);
INSERT INTO "readings" VALUES('5f2c9e01',3,17,'2150-02-28','2150-03-01 08:00:00','Größe ♥ it''s \ "x"',3.33333333333333314829e-01);
INSERT INTO "readings" VALUES('5f2c9e01',4,17,'2150-02-28','2150-03-01 08:00:00','HR',1.0e-300);
INSERT INTO "readings" VALUES('5f2c9e01',7,17,'2150-02-28','2150-03-01 09:00:00','hr',0.0);
INSERT INTO "readings" VALUES('5f2c9e01',2,-9007199254740993,'2150-02-28','2150-03-01 07:00:00','heart_rate',91.25);
INSERT INTO "readings" VALUES('5f2c9e01',5,-9007199254740993,'2150-02-28','2150-03-01 08:00:00','spo2',97.0);
INSERT INTO "readings" VALUES('5f2c9e01',8,17,'2150-02-28','2150-03-01 10:00:00','heart_rate',3.00000000000000044408e-01);
INSERT INTO "readings" VALUES('5f2c9e01',12,17,'2150-02-28','2150-03-01 11:00:00','heart_rate',70.0);
INSERT INTO "readings" VALUES('5f2c9e01',10,-9007199254740993,'2150-02-28','2150-03-01 10:00:00','heart_rate',88.0);
INSERT INTO "readings" VALUES('0a0b0c0d',1,17,'2150-02-28','2150-03-01 07:00:00','heart_rate',60.0);
CREATE TABLE rejected (
    stream         VARCHAR(32)  NOT NULL,
    seq            BIGINT       NOT NULL,
    pat_id         BIGINT       NULL,
    reason         VARCHAR(255) NOT NULL,
    message        MEDIUMTEXT   NOT NULL,
    rejected_at    DATETIME(3)  NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (pat_id, stream, seq)
);
INSERT INTO "rejected" VALUES('5f2c9e01',6,NULL,'JSON is malformed: object keys must be strings (byte 2)','{ no json \ '' °C','2026-11-27 04:37:00.125');
INSERT INTO "rejected" VALUES('5f2c9e01',9,17,'temperature 99999.0 is not above 26 and up to 45 °C','{"type": "reading", "pat_id": 17, "age": 63.2, "date_admission": "2150-02-28", "date_discharge": null, "day": "2150-03-01", "hour": 10, "parameter": "temperature", "value": 99999}','2026-11-27 04:37:00.125');
CREATE TABLE stays (
    stream         VARCHAR(32)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    age            DOUBLE       NULL,
    date_discharge DATE         NULL,
    PRIMARY KEY (pat_id, date_admission, stream),
    
    UNIQUE (stream, date_discharge, date_admission, pat_id)
);
INSERT INTO "stays" VALUES('5f2c9e01',17,'2150-02-28',63.2,'2150-03-02');
INSERT INTO "stays" VALUES('5f2c9e01',-9007199254740993,'2150-02-28',63.2,NULL);
INSERT INTO "stays" VALUES('0a0b0c0d',17,'2150-02-28',63.2,NULL);
CREATE TABLE vitals (
    stream         VARCHAR(32)  NOT NULL,
    pat_id         BIGINT       NOT NULL,
    date_admission DATE         NOT NULL,
    parameter      VARCHAR(64)  NOT NULL,
    n              BIGINT       NOT NULL,
    mean           DOUBLE       NOT NULL,
    m2             DOUBLE       NOT NULL,
    minimum        DOUBLE       NOT NULL,
    maximum        DOUBLE       NOT NULL,
    `first_value`  DOUBLE       NOT NULL,
    first_at       DATETIME     NOT NULL,
    `last_value`   DOUBLE       NOT NULL,
    last_at        DATETIME     NOT NULL,
    hours_mean     DOUBLE       NOT NULL,
    hours_m2       DOUBLE       NOT NULL,
    covariance     DOUBLE       NOT NULL,
    mean_low       DOUBLE       NOT NULL, 
    seq            BIGINT       NOT NULL,
    PRIMARY KEY (pat_id, date_admission, parameter, stream)
);
INSERT INTO "vitals" VALUES('5f2c9e01',17,'2150-02-28','Größe ♥ it''s \ "x"',1,3.33333333333333314829e-01,0.0,3.33333333333333314829e-01,3.33333333333333314829e-01,3.33333333333333314829e-01,'2150-03-01 08:00:00',3.33333333333333314829e-01,'2150-03-01 08:00:00',32.0,0.0,0.0,0.0,7);
INSERT INTO "vitals" VALUES('5f2c9e01',17,'2150-02-28','HR',1,1.0e-300,0.0,1.0e-300,1.0e-300,1.0e-300,'2150-03-01 08:00:00',1.0e-300,'2150-03-01 08:00:00',32.0,0.0,0.0,0.0,7);
INSERT INTO "vitals" VALUES('5f2c9e01',17,'2150-02-28','heart_rate',3,5.0266666666666665721e+01,3.80012666666666700616e+03,3.00000000000000044408e-01,80.5,80.5,'2150-03-01 07:00:00',70.0,'2150-03-01 11:00:00',3.33333333333333357026e+01,8.66666666666666,-7.09666666666666685631e+01,0.0,12);
INSERT INTO "vitals" VALUES('5f2c9e01',17,'2150-02-28','hr',1,0.0,0.0,0.0,0.0,0.0,'2150-03-01 09:00:00',0.0,'2150-03-01 09:00:00',33.0,0.0,0.0,0.0,7);
INSERT INTO "vitals" VALUES('5f2c9e01',-9007199254740993,'2150-02-28','heart_rate',2,89.625,5.28125,88.0,91.25,91.25,'2150-03-01 07:00:00',88.0,'2150-03-01 10:00:00',32.5,4.5,-4.875,0.0,10);
INSERT INTO "vitals" VALUES('5f2c9e01',-9007199254740993,'2150-02-28','spo2',1,97.0,0.0,97.0,97.0,97.0,'2150-03-01 08:00:00',97.0,'2150-03-01 08:00:00',32.0,0.0,0.0,0.0,5);
INSERT INTO "vitals" VALUES('0a0b0c0d',17,'2150-02-28','heart_rate',1,60.0,0.0,60.0,60.0,60.0,'2150-03-01 07:00:00',60.0,'2150-03-01 07:00:00',31.0,0.0,0.0,0.0,1);
COMMIT;
